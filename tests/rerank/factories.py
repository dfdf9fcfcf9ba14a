"""Backends that misbehave to order, a clock that is moved by hand, and engines around them."""

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from rerank import runtime
from rerank.backends import EncodedPair, ServedModel
from rerank.engine.breaker import CircuitBreaker, Policy
from rerank.engine.engine import Engine, EngineLimits

Forward = Callable[[Sequence[EncodedPair]], object]


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def score_of(query: str, passage: str) -> float:
    """What `FakeBackend` answers: the number after "=" in the passage plus the one in the query."""
    numbers = [text.rpartition("=")[2] for text in (query, passage)]
    return sum(float(number) for number in numbers if number.replace(".", "").lstrip("-").isdigit())


class FakeBackend:
    """Scores as `score_of` says; `misbehave(pairs)` may raise, wait, or return something instead."""

    model = ServedModel("fake-model")
    name, device, dtype = "fake", "cpu", "float32"
    gives_logits = True

    def __init__(self, misbehave: Forward = lambda pairs: None, *, workers: int = 1, mixes: bool = True) -> None:
        self.misbehave = misbehave
        self.workers = workers
        self.mixes_requests = mixes
        self.batches: list[int] = []
        self.closed = False

    def encode(self, query: str, passages: Sequence[str]) -> list[EncodedPair]:
        return [EncodedPair(max(1, len(passage) // 4), (query, passage)) for passage in passages]

    def forward(self, pairs: Sequence[EncodedPair], timeout: float) -> np.ndarray:
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
    backend: FakeBackend, *, clock: Callable[[], float] = time.monotonic, policy: Policy | None = None, queue: int = 64
) -> Engine:
    """A started engine; its breaker needs ten bad forwards of more than 200 ms."""
    breaker = CircuitBreaker(policy or Policy(slow_after=0.2), clock=clock, jitter=lambda low, high: low)
    engine = Engine(backend, breaker, EngineLimits(queue=queue), clock=clock)
    engine.start()
    return engine


def serve_with(backend: FakeBackend, **options: object) -> Engine:
    """Make the process's runtime one that serves with `backend`."""
    served = runtime.Runtime(load=lambda: backend)
    served.engine = make_engine(backend, **options)  # type: ignore[arg-type]
    served.status = runtime.Status.READY
    runtime.reset(served)
    return served.engine


class Gate:
    """A forward that waits until opened, and tells when it is in."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, pairs: Sequence[EncodedPair]) -> None:
        self.entered.set()
        assert self.opened.wait(10)


def passages(count: int, *, prefix: str = "p") -> list[str]:
    """Texts whose scores rise with their place, so that a reranked order is the reverse."""
    return [f"{prefix} {number} ={number}" for number in range(count)]


def wait_until(true: Callable[[], bool], seconds: int = 10) -> None:
    for _ in range(seconds * 1000):
        if true():
            return
        threading.Event().wait(0.001)
    raise AssertionError("never came true")
