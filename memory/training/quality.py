"""How good the order of pools is, and which fusion with the model's score is the best, on dev.

nDCG@10 over documents, each at the place of its best text, as `manage.py evaluate` counts it.
"""

import numpy as np

from memory.benchmarks.ranking import ndcg
from rerank.ordering import Fusion
from rerank.training.fusion import fused
from rerank.training.pools import Pools, by_kind
from rerank.training.scoring import SERVED

WEIGHTS = (0.0, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3)
MOST_CHARACTERS = (200, 300, 400, 600, 800, 1000, None)
CONVERSATIONS = "conversations"
MOST_LOST = 0.003  # of nDCG@10, by any kind of question


def ndcg_of(pools: Pools, scores: np.ndarray) -> np.ndarray:
    """nDCG@10 of each question, its first candidates in the order of `scores` (questions, depth)."""
    return np.array([_ndcg(pools, row, order) for row, order in enumerate(_orders(pools, scores))])


def hybrid_ndcg(pools: Pools, depth: int = SERVED) -> np.ndarray:
    """The same of retrieval's own order."""
    return ndcg_of(pools, pools.hybrid[:, :depth])


def oracle_ndcg(pools: Pools, depth: int = SERVED) -> np.ndarray:
    """The same of the best order there is."""
    return ndcg_of(pools, pools.relevant[:, :depth].astype(np.float64))


def best_fusion(pools: Pools, scores: np.ndarray) -> Fusion:
    """Of the fusions by which no kind of question loses more than MOST_LOST, the one by which conversations gain most,
    each collection's counted alike (where there are none: all kinds), and of these the one that asks least.
    """
    hybrid = _by_kind(pools, hybrid_ndcg(pools, scores.shape[1]))
    spoken = np.array([kind.endswith(f"/{CONVERSATIONS}") for kind in np.unique(pools.kinds)])
    wanted = spoken if spoken.any() else ~spoken
    found: dict[Fusion, float] = {}
    for weight in WEIGHTS:
        for most_characters in MOST_CHARACTERS:
            fusion = Fusion("weighted", weight, most_characters)
            gains = _by_kind(pools, ndcg_of(pools, fused(pools, scores, fusion))) - hybrid
            if gains.min() >= -MOST_LOST:
                found[fusion] = float(gains[wanted].mean())
    return max(found, key=found.__getitem__)


def best_weight(pools: Pools, scores: np.ndarray) -> float:
    """The weight with the best mean of the kinds' nDCG@10, whatever any of them loses."""

    def mean(weight: float) -> float:
        return float(_by_kind(pools, ndcg_of(pools, fused(pools, scores, Fusion("weighted", weight)))).mean())

    return max(WEIGHTS, key=mean)


def figures(pools: Pools, scores: np.ndarray) -> dict[str, float]:
    """A point of the learning curve: nDCG@10 of hybrid, of the model alone, and fused by the weight that is best here,
    which is `dev`, by which the best checkpoint is chosen; and the gain of each kind.
    """
    weight = best_weight(pools, scores)
    together = ndcg_of(pools, fused(pools, scores, Fusion("weighted", weight)))
    hybrid = hybrid_ndcg(pools, scores.shape[1])
    kinds = {kind: [row for row, each in enumerate(pools.kinds) if each == kind] for kind, _ in by_kind(pools)}
    return {
        "dev": float(np.mean([together[rows].mean() for rows in kinds.values()])),
        "hybrid": float(np.mean([hybrid[rows].mean() for rows in kinds.values()])),
        "model": float(ndcg_of(pools, scores).mean()),
        "weight": weight,
        **{f"gain {kind}": float((together - hybrid)[rows].mean()) for kind, rows in kinds.items()},
    }


def _by_kind(pools: Pools, values: np.ndarray) -> np.ndarray:
    """The mean of each kind's questions, in the order of the kinds' names."""
    kinds = np.array(pools.kinds)
    return np.array([values[kinds == kind].mean() for kind in np.unique(kinds)])


def _orders(pools: Pools, scores: np.ndarray) -> list[np.ndarray]:
    """The places of each question's candidates, best first; ties keep retrieval's order."""
    counts = (pools.candidates[:, : scores.shape[1]] >= 0).sum(axis=1)
    return [np.argsort(-row[:count], kind="stable") for row, count in zip(scores, counts, strict=True)]


def _ndcg(pools: Pools, row: int, order: np.ndarray) -> float:
    documents = pools.documents[pools.candidates[row, order]]
    judged = {str(document): 1 for document in documents[pools.relevant[row, order]]}
    missed = int(pools.answers[row]) - len(judged)
    judged |= {f"not among the candidates {number}": 1 for number in range(missed)}
    return ndcg(list(dict.fromkeys(map(str, documents))), judged)
