"""Made-up memories: the same every time, clustered, and of Zipf sizes."""

import numpy as np
import pytest

from memory.benchmarks.synthetic import Synthetic, zipf_sizes


def test_the_same_seed_gives_the_same_memories() -> None:
    first, second = (Synthetic(64, seed=3) for _ in range(2))
    assert list(first.texts(5, 7)) == list(second.texts(5, 7))
    assert (first.vectors(5) == second.vectors(5)).all()
    assert (Synthetic(64, seed=4).vectors(5) != second.vectors(5)).any()


def test_vectors_are_unit_and_clustered() -> None:
    vectors = Synthetic(64).vectors(2000)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    cosines = vectors[:200] @ vectors.T
    np.fill_diagonal(cosines, 0)
    assert np.median(cosines.max(axis=1)) > 0.5
    assert abs(float(np.median(cosines))) < 0.1


def test_texts_repeat_common_words() -> None:
    words = " ".join(Synthetic(64).texts(100, 50)).split()
    assert len(words) == 5000
    assert 300 < len(set(words)) < 4000


def test_a_question_meets_as_many_texts_as_in_real_collections() -> None:
    texts = [set(text.split()) for text in Synthetic(64).texts(4000, 30)]
    questions = [set(text.split()) for text in Synthetic(64, stream=1).texts(50, 8)]
    met = [sum(word in text for text in texts for word in question) / len(texts) for question in questions]
    assert 0.08 < np.mean(met) < 0.25


@pytest.mark.parametrize(("rows", "tenants"), [(100_000, 1000), (10, 10), (7, 3), (5, 1)])
def test_zipf_sizes_add_up_and_fall(rows: int, tenants: int) -> None:
    sizes = zipf_sizes(rows, tenants)
    assert sum(sizes) == rows
    assert len(sizes) == tenants
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= 1


def test_more_tenants_than_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="as many rows as tenants"):
        zipf_sizes(2, 3)
