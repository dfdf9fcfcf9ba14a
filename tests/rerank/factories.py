"""Backends that misbehave to order, and engines around them."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference.bert_graph import cross_encoder_graph
from inference.engine.breaker import CircuitBreaker, Policy
from inference.engine.engine import Engine
from inference.engine.jobs import Encoded
from rerank import runtime, scoring
from rerank.backends import Backend, ServedModel
from rerank.weights.exported import GRAPH
from rerank.weights.files import CONFIG, TOKENIZER, ModelChoice, ModelFiles, load_weights, verify
from rerank.weights.modules import sha256_of
from rerank.weights.random_model import TINYBERT, write_random_model

Forward = Callable[[Sequence[Encoded]], object]


def score_of(query: str, passage: str) -> float:
    """What `FakeBackend` answers: the number after "=" in the passage plus the one in the query."""
    numbers = [text.rpartition("=")[2] for text in (query, passage)]
    return sum(float(number) for number in numbers if number.replace(".", "").lstrip("-").isdigit())


class FakeBackend:
    """Scores as `score_of` says; `misbehave(pairs)` may raise, wait, or return something instead."""

    model = ServedModel("fake-model")
    name, device, dtype = "fake", "cpu", "float32"
    gives_logits = True
    row: tuple[int, ...] = ()

    def __init__(self, misbehave: Forward = lambda pairs: None, *, workers: int = 1, mixes: bool = True) -> None:
        self.misbehave = misbehave
        self.workers = workers
        self.mixes_requests = mixes
        self.batches: list[int] = []
        self.closed = False

    def encode(self, query: str, passages: Sequence[str]) -> list[Encoded]:
        return [Encoded(max(1, len(passage) // 4), (query, passage)) for passage in passages]

    def forward(self, pairs: Sequence[Encoded], timeout: float) -> np.ndarray:
        self.batches.append(len(pairs))
        instead = self.misbehave(pairs)
        if instead is not None:
            return np.asarray(instead)
        return np.array([score_of(*pair.payload) for pair in pairs])

    def predict(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.array([score_of(*pair) for pair in pairs])

    def close(self) -> None:
        self.closed = True


def make_engine(
    backend: FakeBackend, *, clock: Callable[[], float] = time.monotonic, policy: Policy | None = None
) -> Engine[Backend]:
    """A started engine; its breaker needs ten bad forwards of more than 200 ms."""
    breaker = CircuitBreaker(policy or Policy(slow_after=0.2), clock=clock, jitter=lambda low, high: low)
    engine = scoring.make_engine(backend, breaker, clock=clock)
    engine.start()
    return engine


def serve_with(backend: FakeBackend, **options: object) -> Engine[Backend]:
    """Make the process's runtime one that serves with `backend`."""
    served = runtime.Runtime(load=lambda: backend)
    served.engine = make_engine(backend, **options)  # type: ignore[arg-type]
    served.status = runtime.Status.READY
    runtime.reset(served)
    return served.engine


def passages(count: int, *, prefix: str = "p") -> list[str]:
    """Texts whose scores rise with their place, so that a reranked order is the reverse."""
    return [f"{prefix} {number} ={number}" for number in range(count)]


def write_small_model(directory: Path) -> ModelFiles:
    """A cross-encoder of one narrow layer with random weights, as the hub would have it."""
    small = TINYBERT | {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
    write_random_model(directory, config=small, scale=0.5)
    return verify(directory, ModelChoice(str(directory), "", "", allow_download=False))


def export_model(original: ModelFiles, directory: Path) -> Path:
    """The same as one ONNX file, called "tiny", in a folder as RERANK_FALLBACK_MODEL wants it."""
    directory.mkdir()
    (directory / TOKENIZER).write_bytes((original.directory / TOKENIZER).read_bytes())
    (directory / GRAPH).write_bytes(cross_encoder_graph(original.config, load_weights(original.directory)))
    write_export_config(directory)
    return directory


def write_export_config(directory: Path, **changes: Any) -> None:
    described = {"name": "tiny", "fusion": "weighted", "weight": 0.1, "max_length": 128}
    described["sha256"] = sha256_of(directory / GRAPH)
    (directory / CONFIG).write_text(json.dumps(described | changes))
