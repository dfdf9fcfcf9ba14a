"""One request to a model, and the same inside the engine."""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any


class Priority(IntEnum):
    """What goes first. Somebody waits for the answer to a question; passages are to be stored."""

    QUESTION = 0
    PASSAGE = 1


class Refusal(StrEnum):
    """Why a request got no results."""

    TIMEOUT = "timeout"
    BREAKER_OPEN = "breaker_open"
    QUEUE_FULL = "queue_full"
    PREDICTED_LATE = "predicted_late"
    ERROR = "error"
    NOT_FINITE = "not_finite"


class Refused(Exception):
    """The model gave no usable results, for the `reason` it carries."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Encoded:
    """One item, ready for the model: its length in tokens, and what the backend makes of it."""

    tokens: int
    payload: Any


@dataclass(frozen=True, slots=True)
class Request:
    """`size` items for a model. `encode` gives those of a slice of them, when their turn has come.

    `tokens`: about how many they have together. `submitter`: whose they are; submitters take turns.
    """

    size: int
    encode: Callable[[slice], Sequence[Encoded]]
    tokens: int
    priority: Priority = Priority.QUESTION
    submitter: Hashable = None


class Job:
    """A request, and the future that gets its items' results in their order, or `Refused`.

    Times are seconds of the engine's clock. The future is never marked running, so a caller can cancel it any time.
    """

    __slots__ = ("deadline", "enqueued", "forward_seconds", "future", "probe", "request", "results", "size")

    def __init__(self, request: Request, *, enqueued: float, deadline: float, probe: bool = False) -> None:
        self.request = request
        self.size = request.size
        self.enqueued = enqueued
        self.deadline = deadline
        self.probe = probe
        self.forward_seconds = 0.0
        self.results: list[Any] = [None] * request.size
        self.future: Future[tuple[Any, ...]] = Future()

    def __repr__(self) -> str:  # never the texts
        return f"<Job of {self.size} items>"

    @property
    def done(self) -> bool:
        return self.future.done()

    def is_live(self, now: float) -> bool:
        """Whether work on it is still worth doing."""
        return not self.future.done() and now <= self.deadline

    def finish(self) -> None:
        try:
            self.future.set_result(tuple(self.results))
        except InvalidStateError:
            return  # the caller left, or the job failed before

    def fail(self, reason: Refusal) -> None:
        try:
            self.future.set_exception(Refused(reason))
        except InvalidStateError:
            return
