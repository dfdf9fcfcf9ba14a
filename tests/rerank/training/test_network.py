from pathlib import Path

import pytest

from inference.bert_graph import cross_encoder_graph
from inference.session import cpu_session
from rerank.training.network import TOKEN_TYPES, WORDS
from rerank.training.pairs import batch_of
from rerank.training.scoring import by_network, scores_of
from tests.rerank.training import small


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_network_scores_as_the_served_graph_does(body: Path, layers: int) -> None:
    network = small.network(body, layers=layers)
    tokenised = small.tokenised(body)
    batch = batch_of([pair for row in range(4) for pair in tokenised.pairs(row, range(8))])
    config = {**small.SMALL, "num_hidden_layers": layers}
    session = cpu_session(cross_encoder_graph(config, network.weights()), threads=1)
    feed = {"input_ids": batch.ids, "token_type_ids": batch.types, "lengths": batch.lengths}
    (logits,) = session.run(None, feed)
    assert by_network(network)(batch) == pytest.approx(logits[:, 0], abs=1e-5)


def test_the_word_embeddings_stay_what_they_were(body: Path) -> None:
    assert not small.network(body).weight(WORDS).requires_grad


def test_four_token_types_begin_as_the_two_they_were(body: Path) -> None:
    plain, shared = (small.network(body, shared=shared).weights()[TOKEN_TYPES] for shared in (False, True))
    assert len(plain) == 2
    assert shared[:2] == pytest.approx(plain)
    assert shared[2:] == pytest.approx(plain, abs=0.1)


def test_a_score_does_not_depend_on_what_shares_its_batch(body: Path) -> None:
    tokenised, score = small.tokenised(body), by_network(small.network(body))
    together = scores_of(tokenised, score)
    alone = score(batch_of(tokenised.pairs(5, [7])))
    assert together[5, 7] == pytest.approx(alone[0], abs=1e-6)
