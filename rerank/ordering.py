"""Scores → order."""

from collections.abc import Sequence

RRF_K = 60


def by_score(scores: Sequence[float]) -> tuple[int, ...]:
    """Indices by falling score; ties keep the candidates' order."""
    return tuple(sorted(range(len(scores)), key=lambda index: -scores[index]))


def by_reciprocal_rank(scores: Sequence[float]) -> tuple[int, ...]:
    """Indices by the sum of 1/(60 + rank) over the candidates' order and the scores' order.

    Cormack, Clarke, Büttcher: Reciprocal rank fusion (SIGIR 2009), with their constant of 60.
    """
    rank = {index: place for place, index in enumerate(by_score(scores))}
    fused = [1 / (RRF_K + index) + 1 / (RRF_K + rank[index]) for index in range(len(scores))]
    return by_score(fused)


FUSIONS = {"replace": by_score, "rrf": by_reciprocal_rank}
