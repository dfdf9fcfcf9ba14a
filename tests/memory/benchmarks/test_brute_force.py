"""The right answer that engines are compared with."""

import numpy as np
import pytest

from memory.benchmarks.brute_force import BruteForce
from memory.index.bm25 import inverse_document_frequency
from memory.search.search_parameters import Weights
from tests.memory.brute_force import fused

TEXTS = ["red apples and pears", "green apples", "blue trains", "a train to the sea", "salt", "apples apples"]


def unit(*numbers: float) -> np.ndarray:
    vector = np.array(numbers, dtype=np.float32)
    return np.asarray(vector / np.linalg.norm(vector))


VECTORS = np.stack([unit(1, i, i * i) for i in range(6)])


def test_dense_scores_are_cosines() -> None:
    query = unit(1, 0, 0)
    scores = BruteForce(VECTORS, TEXTS, np.arange(len(TEXTS)) // 2).scores("apples", query, Weights(1.0, 0.0, 0.0))
    assert scores == pytest.approx(VECTORS @ query)


def test_keywords_are_bm25_as_a_share_of_the_best() -> None:
    brute_force = BruteForce(VECTORS, TEXTS, np.arange(len(TEXTS)) // 1)
    scores = brute_force.scores("apples", unit(1, 0, 0), Weights(0.0, 1.0, 0.0))
    assert [row for row, score in enumerate(scores) if score > 0] == [0, 1, 5]
    assert scores.max() == 1.0
    assert brute_force.best("apples", unit(1, 0, 0), Weights(0.0, 1.0, 0.0), 1) == [5]
    assert inverse_document_frequency(3, 6) > 0


def test_agrees_with_the_reference_of_the_search_tests() -> None:
    documents = [[(TEXTS[i + j], VECTORS[i + j]) for j in range(3)] for i in (0, 3)]
    expected = fused("train apples", unit(0, 1, 1), documents)
    found = BruteForce(VECTORS, TEXTS, np.arange(len(TEXTS)) // 3).scores(
        "train apples", unit(0, 1, 1), Weights(1.0, 0.5, 0.9)
    )
    assert found == pytest.approx(expected, abs=1e-6)
