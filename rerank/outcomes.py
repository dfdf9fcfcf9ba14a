"""What a rerank comes to: an order with scores, or the candidates' own order and the reason why."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class SkipReason(StrEnum):
    """Why the candidates' own order was returned. The values are part of the API."""

    DISABLED = "disabled"
    LOADING = "loading"
    MODEL_UNAVAILABLE = "model_unavailable"
    TIMEOUT = "timeout"
    BREAKER_OPEN = "breaker_open"
    QUEUE_FULL = "queue_full"
    PREDICTED_LATE = "predicted_late"
    ERROR = "error"
    NAN_SCORES = "nan_scores"
    LONG_PASSAGES = "long_passages"


class Skipped(Exception):
    """The cross-encoder gave no usable scores, for the `reason` it carries. Never leaves the app."""

    def __init__(self, reason: SkipReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class ModelUnavailable(Exception):
    """The cross-encoder cannot be loaded; the message says why and what an operator can do."""


class GPURequired(Exception):
    """RERANK_REQUIRE_GPU is true and there is no usable CUDA device; the message says why."""


@dataclass(frozen=True, slots=True)
class RerankedResult:
    """One candidate in its new place.

    `index` is its position in the caller's list, `score` the raw logit (None when skipped, and `skip_reason` says why;
    None too for what lies beyond RERANK_POOL_TOKENS and follows the reranked in its own order).
    """

    index: int
    text: str
    score: float | None
    reranked: bool
    skip_reason: SkipReason | None = None


@dataclass(frozen=True, slots=True)
class Reranker:
    """Which model ordered an answer, and how its scores were used (rerank.ordering.FUSIONS)."""

    model: str
    fusion: str


@dataclass(frozen=True, slots=True)
class Reranking:
    """`order`: candidate indices, best first, always a permutation. `scores`: raw logits by candidate, None for one
    that the pool had no room for; None altogether where nothing was reranked. `reranker`: who did it.

    No candidates are neither reranked nor skipped.
    """

    order: tuple[int, ...]
    scores: tuple[float | None, ...] | None
    skip_reason: SkipReason | None = None
    reranker: Reranker | None = None

    @property
    def reranked(self) -> bool:
        return self.scores is not None

    @classmethod
    def skipped(cls, count: int, reason: SkipReason) -> "Reranking":
        return cls(order=tuple(range(count)), scores=None, skip_reason=reason)

    def results(self, texts: Sequence[str]) -> list[RerankedResult]:
        """The candidates `texts` (the caller's list, in its order) in the order found."""
        return [
            RerankedResult(
                index, texts[index], self.scores[index] if self.scores else None, self.reranked, self.skip_reason
            )
            for index in self.order
        ]
