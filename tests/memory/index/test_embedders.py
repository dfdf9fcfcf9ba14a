"""What computes embeddings: that the three agree, and what they do with what no sentence is."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch as torch_library

from inference.bert_graph import UnsupportedArchitecture
from memory.exceptions import EmbeddingModelUnavailable
from memory.index import embedding_runtime
from memory.index.embedders import Embedder, Kind
from memory.index.embedders.model_folder import ModelFolder
from memory.index.embedders.onnx_embedder import OnnxEmbedder
from memory.index.embedders.torch_embedder import GPU_ITEMS, GPU_SLICE_TOKENS, TorchEmbedder
from memory.index.embedding import embed_passages, embed_query, embed_questions
from memory.index.embedding_runtime import bundled_directory, load_embedder

# Real sentences of several scripts and lengths, one longer than the model reads, and what no sentence is.
TEXTS = [
    "Milo is three years old and afraid of the vacuum cleaner.",
    "The train to Lisbon leaves at seven from platform four; bring the printed ticket.",
    "Der Zug nach Lissabon fährt um sieben Uhr von Gleis vier.",
    "会議は金曜日の午後三時に始まります。資料を持ってきてください。",
    "Совещание начнётся в пятницу в три часа.",
    "موعد الاجتماع يوم الجمعة الساعة الثالثة",
    "def main() -> None:\n    print('hello')",
    "🙂🙂🙂",
    "   ",
    "\u200f\u200e",
    "The quick brown fox jumps over the lazy dog. " * 60,
]


@pytest.fixture(scope="module")
def onnx() -> OnnxEmbedder:
    return OnnxEmbedder(ModelFolder.read(bundled_directory()), threads=2)


@pytest.fixture(scope="module")
def torch() -> TorchEmbedder:
    return torch_embedder(bundled_directory())


def torch_embedder(path: Path, **options: Any) -> TorchEmbedder:
    return TorchEmbedder(str(path), device="cpu", **options)


def embed(embedder: Embedder, texts: Sequence[str], kind: Kind) -> np.ndarray:
    return embedder.forward(embedder.encode(texts, kind), timeout=60)


@pytest.fixture
def variant(tmp_path: Path) -> Iterator[Path]:
    """A copy of the bundled model whose folder a test may change."""
    yield Path(shutil.copytree(bundled_directory(), tmp_path / "model"))


def change(folder: Path, name: str, value: Any) -> None:
    path = folder / name
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, **value} if isinstance(found, dict) else value))


@pytest.mark.parametrize("kind", list(Kind))
def test_onnx_agrees_with_sentence_transformers(onnx: OnnxEmbedder, torch: TorchEmbedder, kind: Kind) -> None:
    found, expected = embed(onnx, TEXTS, kind), embed(torch, TEXTS, kind)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.sum(found * expected, axis=1).min() >= 0.9999
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)


def test_a_vector_does_not_depend_on_its_company(onnx: OnnxEmbedder) -> None:
    alone = np.concatenate([embed(onnx, [text], Kind.PASSAGE) for text in TEXTS])
    assert np.allclose(embed(onnx, TEXTS, Kind.PASSAGE), alone, atol=1e-5)


def test_a_model_pooled_by_its_first_token_agrees_too(variant: Path) -> None:
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    change(variant, "1_Pooling/config.json", modes)
    found = embed(OnnxEmbedder(ModelFolder.read(variant), threads=2), TEXTS, Kind.PASSAGE)
    assert np.sum(found * embed(torch_embedder(variant), TEXTS, Kind.PASSAGE), axis=1).min() >= 0.9999


def test_the_models_own_prompts_are_used_by_both(variant: Path, onnx: OnnxEmbedder) -> None:
    prompts = {"query": "query: ", "passage": "passage: "}
    change(variant, "config_sentence_transformers.json", {"prompts": prompts})
    prompted, library = OnnxEmbedder(ModelFolder.read(variant), threads=2), torch_embedder(variant)
    for kind, prompt in ((Kind.QUESTION, "query: "), (Kind.PASSAGE, "passage: ")):
        found = embed(prompted, TEXTS, kind)
        assert np.allclose(found, embed(onnx, [prompt + text for text in TEXTS], kind), atol=1e-5)
        assert np.sum(found * embed(library, TEXTS, kind), axis=1).min() >= 0.9999


def test_lone_surrogates_are_no_error(onnx: OnnxEmbedder, torch: TorchEmbedder) -> None:
    for model in (onnx, torch):
        assert np.isfinite(embed(model, ["\ud800 half a character"], Kind.PASSAGE)).all()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("config.json", {"model_type": "roberta"}, "roberta"),
        ("modules.json", [{"type": "x.Transformer"}, {"type": "x.Pooling"}, {"type": "x.Dense"}], "Dense"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "max_tokens"),
    ],
)
def test_a_folder_that_the_graph_does_not_know_goes_to_torch(
    variant: Path, settings: Any, name: str, value: Any, reason: str
) -> None:
    change(variant, name, value)
    with pytest.raises(UnsupportedArchitecture, match=reason):
        ModelFolder.read(variant)
    settings.MEMORY_EMBEDDING_MODEL, settings.MEMORY_EMBEDDING_BACKEND = str(variant), "onnx"
    with pytest.raises(EmbeddingModelUnavailable, match=reason):
        load_embedder()


def test_the_backend_is_chosen_by_setting(settings: Any) -> None:
    assert isinstance(load_embedder(), OnnxEmbedder)
    settings.MEMORY_EMBEDDING_BACKEND = "torch"
    assert isinstance(load_embedder(), TorchEmbedder)
    assert embed_query("hello").shape == (384,) and embed_passages(["a", "b"]).shape == (2, 384)


def test_corrupt_weights_are_refused(variant: Path) -> None:
    weights = variant / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(EmbeddingModelUnavailable, match="is corrupt"):
        OnnxEmbedder(ModelFolder.read(variant), threads=1)


def test_a_model_trained_for_it_is_cut_to_fewer_dimensions(onnx: OnnxEmbedder, settings: Any) -> None:
    short = OnnxEmbedder(ModelFolder.read(bundled_directory()), threads=2, dimension=128)
    found = embed(short, TEXTS, Kind.PASSAGE)
    cut = embed(onnx, TEXTS, Kind.PASSAGE)[:, :128]
    assert np.allclose(found, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6)
    library = torch_embedder(bundled_directory(), dimension=128)
    assert np.sum(found * embed(library, TEXTS, Kind.PASSAGE), axis=1).min() >= 0.9999
    settings.MEMORY_EMBEDDING_DIM = 128
    with pytest.raises(EmbeddingModelUnavailable, match="384 dimensions"):
        load_embedder()  # a model that was not trained for it is not cut unasked
    settings.MEMORY_EMBEDDING_TRUNCATE = True
    assert load_embedder().row == (128,)
    assert embed_query("hello").shape == (128,)


def test_prompts_of_the_settings_stand_in_for_the_models(settings: Any, onnx: OnnxEmbedder) -> None:
    settings.MEMORY_EMBEDDING_QUERY_PROMPT = "query: "
    assert np.allclose(embed_query("where?"), embed(onnx, ["query: where?"], Kind.QUESTION), atol=1e-5)
    assert np.allclose(embed_questions(["where?"])[0], embed_query("where?"), atol=1e-5)
    assert np.allclose(embed_passages(["here"]), embed(onnx, ["here"], Kind.PASSAGE), atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [" " * 1_000_000 + "x", "x", "\n" * 4_000, "🙂" * 1_000, "\u202e\u200f" * 500, "word " * 100_000],
    ids=["spaces", "one token", "newlines", "emoji", "marks", "long"],
)
def test_whatever_the_text_there_is_a_vector(onnx: OnnxEmbedder, text: str) -> None:
    (item,) = onnx.encode([text], Kind.PASSAGE)
    assert item.tokens <= 256
    assert np.linalg.norm(onnx.forward([item], 60)) == pytest.approx(1, abs=1e-5)


class FakeSentenceTransformer:
    """What the library would be asked on a machine with a GPU."""

    prompts: dict[str, str] = {}
    max_seq_length = 256

    def __init__(self, name: str, **options: Any) -> None:
        self.options = options
        self.asked: list[tuple[int, Any]] = []

    def get_embedding_dimension(self) -> int:
        return 384

    def encode_document(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        self.asked.append((len(texts), options["batch_size"]))
        return np.eye(len(texts), 384, dtype=np.float16)

    encode_query = encode_document


def test_a_gpu_gets_half_precision_and_large_batches(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(embedding_runtime, "GPU_DRIVERS", ("/dev/null",))
    monkeypatch.setattr(torch_library.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_library.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", FakeSentenceTransformer)
    embedding_runtime.reset()
    embedder = load_embedder()
    assert isinstance(embedder, TorchEmbedder) and embedder.device == "cuda"
    assert embedder._model.options["model_kwargs"]["dtype"] is torch_library.float16
    assert (embedder.limits.items, embedder.limits.slice_tokens) == (GPU_ITEMS, GPU_SLICE_TOKENS)
    found = embed_passages(["a few words"] * 600)
    assert found.shape == (600, 384) and found.dtype == np.float32
    assert embedding_runtime.current().load_now().backend._model.asked[1:] == [(256, 256), (256, 256), (88, 88)]  # type: ignore[attr-defined]
    embedding_runtime.reset()


def test_the_cpu_is_used_where_it_is_named_and_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(embedding_runtime, "GPU_DRIVERS", ("/dev/null",))
    monkeypatch.setattr(torch_library.cuda, "is_available", lambda: False)
    assert isinstance(load_embedder(), OnnxEmbedder)
    monkeypatch.setattr(torch_library.cuda, "is_available", lambda: True)
    settings.MEMORY_EMBEDDING_DEVICE = "cpu"
    assert isinstance(load_embedder(), OnnxEmbedder)
