import numpy as np
import pytest

from memory.training.quality import best_fusion, best_weight, figures, hybrid_ndcg, ndcg_of, oracle_ndcg
from memory.training.report import as_markdown, rows_of, what_is_in_the_way
from rerank.ordering import Fusion
from rerank.training.pools import Pools, joined
from tests.rerank.training.small import colour_pools


def right(pools: Pools) -> np.ndarray:
    return pools.relevant[:, :24].astype(float)


def test_the_best_order_is_the_answer_first() -> None:
    pools = colour_pools()
    assert oracle_ndcg(pools).tolist() == [1.0] * len(pools)
    place = pools.relevant[0].argmax()
    assert hybrid_ndcg(pools)[0] == pytest.approx(1 / np.log2(place + 2))


def test_an_answer_that_is_no_candidate_counts_as_missed() -> None:
    pools = colour_pools()
    pools.answers[:] = 2
    assert oracle_ndcg(pools)[0] == pytest.approx(1 / (1 + 1 / np.log2(3)))


def test_a_document_counts_at_the_place_of_its_best_text() -> None:
    pools = colour_pools()
    first, second = pools.candidates[0, :2]
    pools.documents[first] = pools.documents[second]
    pools.relevant[0] = False
    pools.relevant[0, 2] = True
    assert hybrid_ndcg(pools)[0] == pytest.approx(1 / np.log2(3))


def test_a_pool_of_few_candidates_is_counted_as_it_is() -> None:
    pools = colour_pools(1)
    pools.candidates[0, 3:] = -1
    pools.relevant[0] = False
    pools.relevant[0, 2] = True
    assert ndcg_of(pools, np.arange(24.0)[None]).tolist() == [1.0]


def test_a_model_that_knows_gets_weight_and_one_that_errs_gets_none() -> None:
    pools = colour_pools()
    assert best_weight(pools, right(pools)) > 0
    assert best_weight(pools, -right(pools)) == 0.0
    assert figures(pools, right(pools))["dev"] > figures(pools, right(pools))["hybrid"]


def test_a_model_that_errs_about_long_passages_is_asked_about_short_ones_alone() -> None:
    short, long = colour_pools(), colour_pools()
    long = Pools(**{**vars(long), "texts": [text.ljust(700) for text in long.texts], "kinds": ["long"] * len(long)})
    pools, scores = joined([short, long]), np.concatenate([right(short), -right(long)])
    fusion = best_fusion(pools, scores)
    assert fusion.weight > 0
    assert 30 < (fusion.most_characters or 1000) < 700


def test_conversations_decide_and_no_more_is_asked_than_they_need() -> None:
    spoken, long = colour_pools(), colour_pools()
    spoken = Pools(**{**vars(spoken), "kinds": ["posts/conversations"] * len(spoken)})
    long = Pools(**{**vars(long), "texts": [text.ljust(700) for text in long.texts], "kinds": ["long"] * len(long)})
    both = joined([spoken, long])
    assert best_fusion(both, right(both)) == best_fusion(spoken, right(spoken))
    assert best_fusion(both, right(both)).most_characters == 200


def test_no_kind_of_question_may_lose_for_the_sake_of_others() -> None:
    pools = colour_pools()
    scores = right(pools) * np.where(np.array(pools.kinds) == "odd", -1, 1)[:, None]
    assert best_fusion(pools, scores).weight == 0


def test_a_model_that_gains_on_conversations_and_loses_nowhere_is_shipped() -> None:
    pools = colour_pools()
    pools = Pools(**{**vars(pools), "kinds": ["posts/conversations", "posts/documents"] * 30})
    good = list(rows_of(pools, right(pools), Fusion("weighted", 0.3)))
    assert [row.name for row in good] == ["posts/conversations", "posts/documents", "conversations"]
    assert what_is_in_the_way(good) == []
    bad = what_is_in_the_way(list(rows_of(pools, -right(pools), Fusion("weighted", 0.3))))
    assert len(bad) == 4
    assert "conversations gain less than 0.02" in bad
    assert as_markdown(good).count("\n") == 4
