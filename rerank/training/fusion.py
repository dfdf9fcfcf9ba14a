"""The fusion that serves, over whole pools at once: hybrid + weight · z of the model's score in its pool.

`rerank.ordering.Fusion` is the same for one request; a test holds the two together.
"""

import numpy as np

from rerank.training.pools import Pools


def normalised(scores: np.ndarray, there: np.ndarray) -> np.ndarray:
    """z of each row over the candidates that are `there`; 0 where all are alike."""
    count = np.maximum(1, there.sum(axis=1, keepdims=True))
    mean = np.where(there, scores, 0).sum(axis=1, keepdims=True) / count
    deviation = np.sqrt(np.where(there, (scores - mean) ** 2, 0).sum(axis=1, keepdims=True) / count)
    return np.divide(scores - mean, deviation, out=np.zeros(scores.shape), where=deviation > 1e-9)


def fused(pools: Pools, scores: np.ndarray, weight: float) -> np.ndarray:
    """The fused score of the first candidates, float64 of the shape of `scores` (questions, depth)."""
    depth = scores.shape[1]
    return np.asarray(pools.hybrid[:, :depth] + weight * normalised(scores, pools.candidates[:, :depth] >= 0))
