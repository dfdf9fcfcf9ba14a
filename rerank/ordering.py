"""Scores → order: the cross-encoder's own, or one fused with what retrieval found."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RRF_K = 60
FUSIONS = ("replace", "rrf", "weighted")


@dataclass(frozen=True, slots=True)
class Fusion:
    """How the cross-encoder's scores and the retrieval order make one order.

    replace    the cross-encoder's order
    rrf        by the sum of 1/(60 + rank) over both orders (Cormack, Clarke, Büttcher, SIGIR 2009)
    weighted   by retrieval score + `weight` · z, z being the cross-encoder's score less the pool's mean, divided by
               the pool's standard deviation

    `most_characters`: a pool whose passages are longer in the mean is not for this model, and keeps its order.
    """

    name: str
    weight: float = 0.0
    most_characters: int | None = None

    def suits(self, passages: Sequence[object]) -> bool:
        """Whether the model is to be asked about a pool; what is no text counts as an empty one."""
        if self.most_characters is None:
            return True
        return sum(len(each) for each in passages if isinstance(each, str)) <= self.most_characters * len(passages)

    def order(self, scores: Sequence[float], retrieval_scores: Sequence[float] | None = None) -> tuple[int, ...]:
        """Indices, best first; ties keep the candidates' order, which is that of retrieval.

        Where the caller has no retrieval scores, `weighted` becomes `rrf`, which needs the places alone.
        """
        if self.name == "replace":
            return by_score(scores)
        if self.name == "rrf" or retrieval_scores is None:
            return by_reciprocal_rank(scores)
        return by_weighted_sum(scores, retrieval_scores, self.weight)


def by_score(scores: Sequence[float]) -> tuple[int, ...]:
    """Indices by falling score; ties keep the candidates' order."""
    return tuple(sorted(range(len(scores)), key=lambda index: -scores[index]))


def by_reciprocal_rank(scores: Sequence[float]) -> tuple[int, ...]:
    """Indices by reciprocal rank fusion of the candidates' order and the scores' order."""
    rank = {index: place for place, index in enumerate(by_score(scores))}
    fused = [1 / (RRF_K + index) + 1 / (RRF_K + rank[index]) for index in range(len(scores))]
    return by_score(fused)


def by_weighted_sum(scores: Sequence[float], retrieval_scores: Sequence[float], weight: float) -> tuple[int, ...]:
    """Indices by retrieval score + weight · standardised score; equal scores all around change nothing."""
    given = np.asarray(scores, dtype=np.float64)
    spread = given.std() if len(scores) else 0.0
    standard = (given - given.mean()) / spread if spread > 0 else np.zeros_like(given)
    return by_score((np.asarray(retrieval_scores, dtype=np.float64) + weight * standard).tolist())
