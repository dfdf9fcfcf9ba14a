"""Quality measures of a ranking, counted as trec_eval does, and how certain a difference of two rankings is.

`ranked`: document ids, best first. `judged`: {document id: grade}, where a grade of 0 or a missing one is irrelevant.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

Grades = Mapping[str, int]
RESAMPLES = 2_000


def ndcg(ranked: Sequence[str], judged: Grades, depth: int = 10) -> float:
    """Normalised discounted cumulative gain, linear in the grade (Järvelin and Kekäläinen, 2002): 0 to 1."""
    ideal = _discounted(sorted(judged.values(), reverse=True)[:depth])
    return _discounted([judged.get(document, 0) for document in ranked[:depth]]) / ideal if ideal else 0.0


def recall(ranked: Sequence[str], judged: Grades, depth: int) -> float:
    """The share of the relevant documents that stand among the first `depth`."""
    relevant = {document for document, grade in judged.items() if grade > 0}
    return len(relevant.intersection(ranked[:depth])) / len(relevant) if relevant else 0.0


def recall_any(ranked: Sequence[str], judged: Grades, depth: int) -> float:
    """1 where at least one relevant document stands among the first `depth`, else 0."""
    return float(recall(ranked, judged, depth) > 0)


def recall_all(ranked: Sequence[str], judged: Grades, depth: int) -> float:
    """1 where every relevant document stands among the first `depth`, else 0: what an answer from several needs."""
    return float(recall(ranked, judged, depth) == 1)


def reciprocal_rank(ranked: Sequence[str], judged: Grades) -> float:
    """1 / the place of the first relevant document, 0 without one."""
    return next((1 / place for place, document in enumerate(ranked, start=1) if judged.get(document, 0) > 0), 0.0)


def difference(scores: Sequence[float], others: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """The mean of `scores` less that of `others`, of the same queries in the same order, and its 95% interval.

    Paired bootstrap over the queries (Efron and Tibshirani, 1993), percentiles of 2,000 resamples.
    """
    apart = np.asarray(scores, dtype=np.float64) - np.asarray(others, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = [apart[generator.integers(0, len(apart), len(apart))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(apart.mean()), float(low), float(high)


def _discounted(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(place + 1) for place, grade in enumerate(grades, start=1))
