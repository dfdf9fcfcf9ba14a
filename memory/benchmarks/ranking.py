"""Quality measures of a ranking, counted as trec_eval does.

`ranked`: document ids, best first. `judged`: {document id: grade}, where a grade of 0 or a missing one is irrelevant.
"""

import math
from collections.abc import Mapping, Sequence

Grades = Mapping[str, int]


def ndcg(ranked: Sequence[str], judged: Grades, depth: int = 10) -> float:
    """Normalised discounted cumulative gain, linear in the grade (Järvelin and Kekäläinen, 2002): 0 to 1."""
    ideal = _discounted(sorted(judged.values(), reverse=True)[:depth])
    return _discounted([judged.get(document, 0) for document in ranked[:depth]]) / ideal if ideal else 0.0


def recall(ranked: Sequence[str], judged: Grades, depth: int) -> float:
    """The share of the relevant documents that stand among the first `depth`."""
    relevant = {document for document, grade in judged.items() if grade > 0}
    return len(relevant.intersection(ranked[:depth])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: Sequence[str], judged: Grades) -> float:
    """1 / the place of the first relevant document, 0 without one."""
    return next((1 / place for place, document in enumerate(ranked, start=1) if judged.get(document, 0) > 0), 0.0)


def _discounted(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(place + 1) for place, grade in enumerate(grades, start=1))
