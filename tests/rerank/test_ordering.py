import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.batching import plan_forwards
from rerank.backends.text_cleaning import clean
from rerank.latency import LatencyWindow
from rerank.ordering import FUSIONS, Fusion, by_reciprocal_rank, by_score, by_weighted_sum

scores = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=60)  # as models give them


def test_ties_keep_the_candidates_order() -> None:
    assert by_score([1.0, 2.0, 1.0, 2.0, 1.0]) == (1, 3, 0, 2, 4)
    assert by_score([0.0] * 24) == tuple(range(24))


def test_fusion_keeps_what_both_orders_agree_on_and_moves_less_than_replacement() -> None:
    best_last = [0.0, 1.0, 2.0, 9.0]
    assert by_score(best_last) == (3, 2, 1, 0)
    # 1/60 + 1/63 is more than twice 1/61.5: agreement at the ends beats the middle.
    assert by_reciprocal_rank(best_last) == (0, 3, 1, 2)
    assert by_reciprocal_rank([3.0, 2.0, 1.0]) == (0, 1, 2)


def test_weighted_fusion_adds_the_standardised_score() -> None:
    # Scores 1, 2, 3 standardise to -1.22, 0, 1.22: the last gains 2.45 weights on the first.
    retrieved = [0.5, 0.4, 0.3]
    assert by_weighted_sum([1.0, 2.0, 3.0], retrieved, 0.08) == (0, 1, 2)
    assert by_weighted_sum([1.0, 2.0, 3.0], retrieved, 0.09) == (2, 1, 0)
    assert by_weighted_sum([1001.0, 2001.0, 3001.0], retrieved, 0.09) == (2, 1, 0)  # whatever the model's scale
    assert by_weighted_sum([7.0, 7.0, 7.0], retrieved, 5.0) == (0, 1, 2)


def test_weighted_fusion_without_retrieval_scores_fuses_the_places() -> None:
    assert Fusion("weighted", 0.1).order([0.0, 1.0, 2.0, 9.0]) == by_reciprocal_rank([0.0, 1.0, 2.0, 9.0])


def test_a_pool_suits_by_the_mean_length_of_its_passages() -> None:
    fusion = Fusion("weighted", 0.1, most_characters=3)
    assert fusion.suits(["abcde", "a"])
    assert not fusion.suits(["abcde", "ab"])
    assert fusion.suits(["abcdef", None, b"bytes"])
    assert fusion.suits([])
    assert Fusion("weighted", 0.1).suits(["x" * 10_000])


@pytest.mark.parametrize("name", FUSIONS)
@given(scores)
def test_every_fusion_is_a_permutation(name: str, values: list[float]) -> None:
    for retrieved in (None, [1 / (1 + place) for place in range(len(values))]):
        assert sorted(Fusion(name, 0.1).order(values, retrieved)) == list(range(len(values)))


@given(st.lists(st.integers(1, 512), max_size=80))
def test_forwards_partition_the_pairs_within_both_budgets(lengths: list[int]) -> None:
    plan = plan_forwards(lengths, max_items=32, max_tokens=2048)
    assert sorted(position for batch in plan for position in batch) == list(range(len(lengths)))
    for batch in plan:
        longest = max(lengths[position] for position in batch)
        assert len(batch) <= 32
        assert len(batch) * longest <= 2048
        assert min(lengths[position] for position in batch) >= longest / 2


def test_a_full_batch_of_like_pairs_is_one_forward() -> None:
    assert len(plan_forwards([120] * 32, max_items=32, max_tokens=16384)) == 1


def test_percentiles_are_nearest_rank() -> None:
    window = LatencyWindow()
    assert window.summary() == {"p50": 0.0, "p95": 0.0, "max": 0.0}
    for value in range(1, 101):
        window.add(float(value))
    assert window.summary() == {"p50": 50.0, "p95": 95.0, "max": 100.0}
    window = LatencyWindow(size=3)
    for value in (100.0, 1.0, 2.0, 3.0):
        window.add(value)
    assert window.summary() == {"p50": 2.0, "p95": 3.0, "max": 3.0}  # the first is forgotten


def test_clean_makes_anything_encodable_and_short() -> None:
    assert clean(None, 8) == ""
    assert clean(b"bytes", 8) == ""
    assert clean("a\ud800b", 8) == "a?b"
    assert clean("\U0001f600 שלום", 8) == "\U0001f600 שלום"
    assert len(clean("x" * 10_000_000, 512)) == 8192
