"""The embedding model by itself: a question's time beside sentence-transformers', and the processor time of a slice.

Each question is embedded by both in turns, as the service does (through its engine) and by the library alone; first on
the machine as it is, then beside processes that do nothing but compute.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count

import numpy as np
from django.conf import settings

from inference.engine.batching import plan_forwards
from memory.benchmarks.http import WORDS
from memory.benchmarks.report import Report, Row, Target, at_most
from memory.benchmarks.timing import latencies, nanoseconds
from memory.index import embedding_runtime
from memory.index.embedders import Kind
from memory.index.embedding import embed_query

QUESTION_WORDS = 10
BUSY_PROCESSES = 6
# Ends with its parent, also where that is killed.
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))"
SLICE_TEXTS = {"full length": 400, "60 words": 60, "10 words": 10}  # words of each text
RATIOS = {"quiet": ("p50", 0.35), "busy": ("p95", 0.25)}
MOST_CPU_MS = 50.0


def measure_embedding(*, questions: int, slices: int) -> Report:
    """Times of `questions` questions in each state of the machine, and of `slices` slices of each kind of text."""
    embedding_runtime.current().load_now()
    sides = {"sealed memory": _product, "sentence-transformers": _library()}
    rows: list[Row] = list(_questions("quiet", sides, questions))
    with _busy():
        rows += _questions("busy", sides, questions)
    cpu = [_slice(name, words, slices) for name, words in SLICE_TEXTS.items()]
    return Report(
        "benchmark_index --model",
        [*rows, *cpu],
        _targets(rows, cpu),
        notes=[f"busy: beside {BUSY_PROCESSES} processes that compute without pause."],
    )


Ask = Callable[[str], object]


def _product(text: str) -> object:
    return embed_query(text)


def _library() -> Ask:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        embedding_runtime.model_path(settings.MEMORY_EMBEDDING_MODEL),
        device="cpu",
        local_files_only=not settings.MODELS_MAY_DOWNLOAD,
    )
    return lambda text: model.encode(text, normalize_embeddings=True, show_progress_bar=False)


def _questions(state: str, sides: Mapping[str, Ask], repeats: int) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    milliseconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        text = " ".join(rng.choice(WORDS, QUESTION_WORDS))
        for name, ask in sides.items():
            (taken,) = nanoseconds(lambda ask=ask, text=text: ask(text), 1)  # type: ignore[misc]
            if number:  # the first warms up
                milliseconds[name].append(taken / 1e6)
    plain = latencies(milliseconds["sentence-transformers"], 50, 95)
    for name, values in milliseconds.items():
        found = latencies(values, 50, 95)
        yield {
            "machine": state,
            "by": name,
            "p50_ms": found["p50"],
            "p95_ms": found["p95"],
            "p50_ratio": found["p50"] / plain["p50"],
            "p95_ratio": found["p95"] / plain["p95"],
        }


def _slice(name: str, words: int, repeats: int) -> Row:
    """Processor time of one slice of texts of so many words, all threads of the process together."""
    embedder = embedding_runtime.current().load_now().backend
    rng = np.random.default_rng(1)
    limits = embedder.limits
    texts = [" ".join(rng.choice(WORDS, words)) for _ in range(min(limits.items, 64))]
    items = embedder.encode(texts, Kind.PASSAGE)
    plan = plan_forwards([item.tokens for item in items], max_items=limits.items, max_tokens=limits.slice_tokens)
    parts = [[items[place] for place in part] for part in plan]
    cpu: list[float] = []
    for number in count():
        part = parts[number % len(parts)]
        started = time.process_time()
        embedder.forward(part, float("inf"))
        cpu.append(1000 * (time.process_time() - started))
        if number == repeats:
            break
    tokens = [len(part) * max(item.tokens for item in part) for part in parts]
    measured = latencies(cpu[1:], 50, 95)
    return {
        "slice of": name,
        "texts": len(parts[0]),
        "tokens": max(tokens),
        "cpu_p50_ms": measured["p50"],
        "cpu_p95_ms": measured["p95"],
    }


@contextmanager
def _busy() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(BUSY_PROCESSES):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))  # noqa: S603
            stack.callback(process.kill)
        yield


def _targets(rows: list[Row], slices: list[Row]) -> list[Target]:
    ours = {row["machine"]: row for row in rows if row["by"] == "sealed memory"}
    ratios = [
        at_most(f"a question of {QUESTION_WORDS} words, {state}, {which}", ours[state][f"{which}_ratio"], bound, "×")
        for state, (which, bound) in RATIOS.items()
    ]
    return ratios + [
        at_most(f"processor time of a slice, {row['slice of']}, p50", row["cpu_p50_ms"], MOST_CPU_MS, "ms")
        for row in slices
    ]
