"""How long a trained model takes, beside one of the specified model's shape with random weights, in turns."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from memory.benchmarks.rerank import CANDIDATES, make_queries
from memory.benchmarks.timing import latencies
from rerank.backends.onnx_backend import OnnxBackend
from rerank.backends.pair_tokenizer import Limits
from rerank.weights.exported import verify_exported
from rerank.weights.files import ModelChoice, verify
from rerank.weights.random_model import write_random_model

LENGTHS = (60, 120)  # tokens of a passage
SPECIFIED = "TinyBERT's shape, random weights"


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one question with its candidates, tokenising included."""

    model: str
    tokens: int
    p50: float
    p95: float


def measure_latency(folder: Path, *, questions: int = 30, threads: int = 0) -> list[Latency]:
    """A row for each model and length. `folder`: a model as `RERANK_FALLBACK_MODEL` takes it."""
    with tempfile.TemporaryDirectory() as directory:
        specified = verify(write_random_model(Path(directory)), ModelChoice(directory, "", "", allow_download=False))
        ours = verify_exported(folder)
        backends = {
            SPECIFIED: OnnxBackend(specified, Limits(), threads),
            ours.name: OnnxBackend(ours, Limits(), threads),
        }
        return [row for tokens in LENGTHS for row in _in_turns(backends, tokens, questions)]


def as_markdown(rows: Sequence[Latency]) -> str:
    """The rows as a table."""
    lines = [f"| {CANDIDATES} candidates of | Model | p50 ms | p95 ms |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {r.tokens} tokens | {r.model} | {r.p50:.1f} | {r.p95:.1f} |" for r in rows)])


def _in_turns(backends: dict[str, OnnxBackend], tokens: int, questions: int) -> list[Latency]:
    """Question by question in turns, so that other load on the machine hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in backends}
    for query, passages in make_queries(tokens, questions):
        for name, backend in backends.items():
            started = perf_counter()
            backend.predict([(query, passage) for passage in passages])
            times[name].append(1000 * (perf_counter() - started))
    return [Latency(name, tokens, **latencies(values, 50, 95)) for name, values in times.items()]
