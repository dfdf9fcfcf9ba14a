"""The fusion that serves, over whole pools at once: hybrid + weight · z of the model's score in its pool.

`rerank.ordering.Fusion` is the same for one request; a test holds the two together.
"""

import numpy as np

from rerank.ordering import Fusion
from rerank.training.pools import Pools


def normalised(scores: np.ndarray, there: np.ndarray) -> np.ndarray:
    """z of each row over the candidates that are `there`; 0 where all are alike."""
    count = np.maximum(1, there.sum(axis=1, keepdims=True))
    mean = np.where(there, scores, 0).sum(axis=1, keepdims=True) / count
    deviation = np.sqrt(np.where(there, (scores - mean) ** 2, 0).sum(axis=1, keepdims=True) / count)
    return np.divide(scores - mean, deviation, out=np.zeros(scores.shape), where=deviation > 1e-9)


def suited(pools: Pools, fusion: Fusion, depth: int) -> np.ndarray:
    """bool (questions,): which pools the model is asked about."""
    return np.array([fusion.suits(pools.passages(row, places)) for row, places in enumerate(_places(pools, depth))])


def fused(pools: Pools, scores: np.ndarray, fusion: Fusion) -> np.ndarray:
    """The fused score of the first candidates, float64 of the shape of `scores` (questions, depth)."""
    depth = scores.shape[1]
    added = fusion.weight * normalised(scores, pools.candidates[:, :depth] >= 0)
    return np.asarray(pools.hybrid[:, :depth] + np.where(suited(pools, fusion, depth)[:, None], added, 0))


def _places(pools: Pools, depth: int) -> list[np.ndarray]:
    return [np.arange(count) for count in (pools.candidates[:, :depth] >= 0).sum(axis=1)]
