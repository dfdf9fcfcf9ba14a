import numpy as np

from rerank.ordering import Fusion
from rerank.training.fusion import fused, normalised
from tests.rerank.training import small


def test_whole_pools_are_ordered_as_serving_orders_one() -> None:
    pools = small.colour_pools()
    scores = np.random.default_rng(0).standard_normal((len(pools), 24))
    fusion = Fusion("weighted", 0.3)
    ours = np.argsort(-fused(pools, scores, fusion), axis=1, kind="stable")
    served = [
        fusion.order(row.tolist(), hybrid.tolist())
        for row, hybrid in zip(scores, pools.hybrid[:, :24].astype(np.float64), strict=True)
    ]
    assert ours.tolist() == [list(order) for order in served]


def test_pools_of_long_passages_keep_their_order() -> None:
    pools = small.colour_pools(4)
    scores = np.random.default_rng(0).standard_normal((4, 24))
    lengths = [np.mean([len(text) for text in pools.passages(row, range(24))]) for row in range(4)]
    fusion = Fusion("weighted", 0.3, int(sorted(lengths)[1]) + 1)
    moved = (fused(pools, scores, fusion) != pools.hybrid[:, :24]).any(axis=1)
    assert moved.tolist() == [length <= fusion.most_characters for length in lengths]
    assert 0 < moved.sum() < 4


def test_candidates_that_are_not_there_count_for_nothing() -> None:
    scores = np.array([[1.0, 3.0, 99.0]])
    assert normalised(scores, np.array([[True, True, False]]))[0, :2].tolist() == [-1, 1]


def test_equal_scores_change_nothing() -> None:
    assert normalised(np.full((1, 3), 2.0), np.ones((1, 3), dtype=bool)).tolist() == [[0, 0, 0]]
