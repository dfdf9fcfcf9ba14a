"""Measures of a ranking, against figures worked out by hand."""

import math

import pytest

from memory.benchmarks.ranking import difference, ndcg, recall, recall_all, recall_any, reciprocal_rank

JUDGED = {"a": 2, "b": 1, "c": 0}


def test_ndcg_discounts_by_place_and_is_one_for_the_ideal_order() -> None:
    assert ndcg(["a", "b", "x"], JUDGED) == 1.0
    assert ndcg(["x", "b", "a"], JUDGED) == pytest.approx(
        (1 / math.log2(3) + 2 / math.log2(4)) / (2 / math.log2(2) + 1 / math.log2(3))
    )
    assert ndcg(["x", "c"], JUDGED) == 0.0
    assert ndcg(["x", "a"], JUDGED, depth=1) == 0.0


def test_recall_counts_relevant_documents_only() -> None:
    assert recall(["a", "c", "b"], JUDGED, depth=2) == 0.5
    assert recall(["a", "c", "b"], JUDGED, depth=3) == 1.0
    assert recall([], JUDGED, depth=3) == 0.0


def test_reciprocal_rank_is_that_of_the_first_relevant_document() -> None:
    assert reciprocal_rank(["c", "x", "b", "a"], JUDGED) == pytest.approx(1 / 3)
    assert reciprocal_rank(["c"], JUDGED) == 0.0


def test_recall_of_any_and_of_all() -> None:
    assert [recall_any(["x", "b", "a"], JUDGED, depth) for depth in (1, 2, 3)] == [0.0, 1.0, 1.0]
    assert [recall_all(["x", "b", "a"], JUDGED, depth) for depth in (1, 2, 3)] == [0.0, 0.0, 1.0]


def test_a_difference_comes_with_the_interval_of_its_queries() -> None:
    steady = difference([0.6] * 50, [0.5] * 50)
    assert steady == pytest.approx((0.1, 0.1, 0.1))
    mean, low, high = difference([1.0, 0.0] * 100, [0.5] * 200)
    assert mean == 0.0
    # Each query differs by a half: the standard error of 200 is 0.0354, 1.96 of it 0.069.
    assert low == pytest.approx(-0.069, abs=0.01)
    assert high == pytest.approx(0.069, abs=0.01)
    assert difference([1.0, 0.0] * 100, [0.5] * 200) == (mean, low, high)  # the same seed
