"""A model that misbehaves to order, a clock that is moved by hand, and engines around them."""

import threading
import time
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from inference.engine.backend import EngineLimits
from inference.engine.breaker import CircuitBreaker, Policy
from inference.engine.engine import Engine
from inference.engine.instruments import Instruments
from inference.engine.jobs import Encoded, Job, Priority, Request

Forward = Callable[[Sequence[Encoded]], object]


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Gate:
    """A forward that waits until opened, and tells when it is in."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, items: Sequence[Encoded]) -> None:
        self.entered.set()
        assert self.opened.wait(10)


class FakeModel:
    """Doubles the numbers it is given; `misbehave(items)` may raise, wait, or return something instead."""

    def __init__(
        self,
        misbehave: Forward = lambda items: None,
        *,
        workers: int = 1,
        mixes: bool = True,
        row: tuple[int, ...] = (),
    ) -> None:
        self.misbehave = misbehave
        self.workers = workers
        self.mixes_requests = mixes
        self.row = row
        self.batches: list[list[float]] = []
        self.threads: list[str] = []
        self.closed = False

    def forward(self, items: Sequence[Encoded], timeout: float) -> np.ndarray:
        self.batches.append([item.payload for item in items])
        self.threads.append(threading.current_thread().name)
        instead = self.misbehave(items)
        if instead is not None:
            return np.asarray(instead)
        doubled = np.array([2.0 * item.payload for item in items])
        return np.broadcast_to(doubled.reshape(-1, *[1] * len(self.row)), (len(items), *self.row))

    def close(self) -> None:
        self.closed = True


class Silent:
    """A metric that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[float] = []

    observe = set = lambda self, value: self.told.append(value)


def instruments() -> Instruments:
    return Instruments(*(Silent() for _ in range(7)))  # type: ignore[arg-type]


def make_engine(
    model: FakeModel,
    *,
    clock: Callable[[], float] = time.monotonic,
    policy: Policy | None = None,
    limits: EngineLimits | None = None,
) -> Engine[FakeModel]:
    """A started engine; its breaker needs ten bad forwards of more than 200 ms."""
    breaker = CircuitBreaker(policy or Policy(slow_after=0.2), clock=clock, jitter=lambda low, high: low)
    engine = Engine(model, breaker, instruments(), limits, name="fake", clock=clock)
    engine.start()
    return engine


def request(
    numbers: Sequence[float], priority: Priority = Priority.QUESTION, submitter: Hashable = None, tokens: int = 1
) -> Request:
    """Items that are numbers, each of so many tokens."""
    items = [Encoded(tokens, number) for number in numbers]
    return Request(len(items), items.__getitem__, tokens * len(items), priority, submitter)


def passages(numbers: Sequence[float], submitter: Hashable = None, tokens: int = 1) -> Request:
    return request(numbers, Priority.PASSAGE, submitter, tokens)


def questions(count: int) -> Request:
    return request(range(count))


def results(job: Job) -> tuple[float, ...]:
    return job.future.result(10)


def wait_until(true: Callable[[], bool], seconds: int = 10) -> None:
    for _ in range(seconds * 1000):
        if true():
            return
        threading.Event().wait(0.001)
    raise AssertionError("never came true")
