"""One request inside the engine."""

from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError

from rerank.outcomes import Skipped, SkipReason


class Job:
    """A query, its passages, and the future that gets their raw logits in the passages' order, or `Skipped`.

    Times are seconds of the engine's clock. The future is never marked running, so a caller can cancel it any time.
    """

    __slots__ = ("deadline", "enqueued", "forward_seconds", "future", "passages", "probe", "query", "scores", "tokens")

    def __init__(
        self, query: str, passages: Sequence[str], *, enqueued: float, deadline: float, tokens: int, probe: bool = False
    ) -> None:
        self.query = query
        self.passages = passages
        self.enqueued = enqueued
        self.deadline = deadline
        self.tokens = tokens
        self.probe = probe
        self.forward_seconds = 0.0
        self.scores = [float("-inf")] * len(passages)
        self.future: Future[tuple[float, ...]] = Future()

    def __repr__(self) -> str:  # never the texts
        return f"<Job of {len(self.passages)} passages>"

    @property
    def done(self) -> bool:
        return self.future.done()

    def is_live(self, now: float) -> bool:
        """Whether work on it is still worth doing."""
        return not self.future.done() and now <= self.deadline

    def finish(self) -> None:
        try:
            self.future.set_result(tuple(self.scores))
        except InvalidStateError:
            return  # the caller left, or the job failed before

    def fail(self, reason: SkipReason) -> None:
        try:
            self.future.set_exception(Skipped(reason))
        except InvalidStateError:
            return
