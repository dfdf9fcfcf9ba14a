from pathlib import Path

import numpy as np
import pytest

from rerank.training.export import by_graph, fp32_model, int8_model, quantised
from rerank.training.network import config_of
from rerank.training.scoring import by_network, scores_of
from tests.rerank.training import small


def test_both_files_score_as_the_network(body: Path) -> None:
    network, tokenised = small.network(body), small.tokenised(body)
    whole = fp32_model(config_of(small.SMALL, layers=2, shared_token_types=True), network.weights())
    expected = scores_of(tokenised, by_network(network))
    assert scores_of(tokenised, by_graph(whole)) == pytest.approx(expected, abs=1e-5)
    small_scores = scores_of(tokenised, by_graph(int8_model(whole)))
    assert np.corrcoef(small_scores.ravel(), expected.ravel())[0, 1] > 0.99


def test_eight_bits_take_little_more_than_a_quarter(body: Path) -> None:
    network = small.network(body)
    whole = fp32_model(config_of(small.SMALL, layers=2, shared_token_types=True), network.weights())
    assert len(int8_model(whole)) < 0.32 * len(whole)


def test_a_row_keeps_its_values_to_half_a_step() -> None:
    matrix = np.random.default_rng(0).standard_normal((5, 300)).astype(np.float32) * [[1], [10], [0.1], [0], [1]]
    integers, scale = quantised(matrix.astype(np.float32))
    assert (np.abs(integers * scale - matrix) <= scale / 2 + 1e-7).all()
