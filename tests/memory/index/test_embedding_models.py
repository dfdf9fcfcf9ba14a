"""The backends of the embedding model: that they agree, and that a question never waits for passages."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.bert_graph import UnsupportedArchitecture
from keys import heartbeat
from memory.exceptions import EmbeddingModelUnavailable
from memory.index import embedding
from memory.index.embedding import bundled_directory, embed_passages, embed_query, get_embedding_model
from memory.index.embedding_models import SLICE_TOKENS, Kind, ModelFolder, OnnxModel, TorchModel, slices

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
def onnx() -> OnnxModel:
    return OnnxModel(ModelFolder.read(bundled_directory()), threads=2)


@pytest.fixture(scope="module")
def torch() -> TorchModel:
    return torch_model(bundled_directory())


def torch_model(path: Path) -> TorchModel:
    return TorchModel(str(path), device="cpu", batch=32, may_download=False)


@pytest.fixture
def variant(tmp_path: Path) -> Iterator[Path]:
    """A copy of the bundled model whose folder a test may change."""
    yield Path(shutil.copytree(bundled_directory(), tmp_path / "model"))


def change(folder: Path, name: str, value: Any) -> None:
    path = folder / name
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, **value} if isinstance(found, dict) else value))


@pytest.mark.parametrize("kind", list(Kind))
def test_onnx_agrees_with_sentence_transformers(onnx: OnnxModel, torch: TorchModel, kind: Kind) -> None:
    found, expected = onnx.embed(TEXTS, kind), torch.embed(TEXTS, kind)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.sum(found * expected, axis=1).min() >= 0.9999
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)


def test_a_vector_does_not_depend_on_its_company(onnx: OnnxModel) -> None:
    alone = np.concatenate([onnx.embed([text], Kind.PASSAGE) for text in TEXTS])
    assert np.allclose(onnx.embed(TEXTS, Kind.PASSAGE), alone, atol=1e-5)


def test_a_model_pooled_by_its_first_token_agrees_too(variant: Path) -> None:
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    change(variant, "1_Pooling/config.json", modes)
    found = OnnxModel(ModelFolder.read(variant), threads=2).embed(TEXTS, Kind.PASSAGE)
    assert np.sum(found * torch_model(variant).embed(TEXTS, Kind.PASSAGE), axis=1).min() >= 0.9999


def test_the_models_own_prompts_are_used_by_both(variant: Path, onnx: OnnxModel) -> None:
    prompts = {"query": "query: ", "passage": "passage: "}
    change(variant, "config_sentence_transformers.json", {"prompts": prompts})
    prompted, library = OnnxModel(ModelFolder.read(variant), threads=2), torch_model(variant)
    for kind, prompt in ((Kind.QUESTION, "query: "), (Kind.PASSAGE, "passage: ")):
        found = prompted.embed(TEXTS, kind)
        assert np.allclose(found, onnx.embed([prompt + text for text in TEXTS], kind), atol=1e-5)
        assert np.sum(found * library.embed(TEXTS, kind), axis=1).min() >= 0.9999


def test_lone_surrogates_are_no_error(onnx: OnnxModel, torch: TorchModel) -> None:
    for model in (onnx, torch):
        assert np.isfinite(model.embed(["\ud800 half a character"], Kind.PASSAGE)).all()


def test_a_question_does_not_wait_for_passages(onnx: OnnxModel) -> None:
    with ThreadPoolExecutor(1) as pool, onnx._slice:  # as while somebody's passages are being embedded
        assert pool.submit(onnx.embed, ["Where is Milo?"], Kind.QUESTION).result(timeout=30).shape == (1, 384)


def test_passages_of_two_callers_take_turns(onnx: OnnxModel) -> None:
    with ThreadPoolExecutor(1) as pool:
        with onnx._slice:
            waiting = pool.submit(onnx.embed, ["one", "two"], Kind.PASSAGE)
            assert not waiting.done()
        assert waiting.result(timeout=30).shape == (2, 384)


@given(st.lists(st.integers(min_value=1, max_value=SLICE_TOKENS + 10)))
def test_slices_hold_every_text_once_and_stay_small(lengths: list[int]) -> None:
    parts = list(slices(lengths))
    assert sorted(place for part in parts for place in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or len(part) * max(lengths[place] for place in part) <= SLICE_TOKENS


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
        get_embedding_model()


def test_the_backend_is_chosen_by_setting(settings: Any) -> None:
    assert isinstance(get_embedding_model(), OnnxModel)
    settings.MEMORY_EMBEDDING_BACKEND = "torch"
    assert isinstance(get_embedding_model(), TorchModel)
    assert embed_query("hello").shape == (384,) and embed_passages(["a", "b"]).shape == (2, 384)


def test_corrupt_weights_are_refused(variant: Path) -> None:
    weights = variant / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(EmbeddingModelUnavailable, match="is corrupt"):
        OnnxModel(ModelFolder.read(variant), threads=1)


def test_the_processes_of_a_server_share_the_cores(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding.os, "sched_getaffinity", lambda pid: set(range(8)))
    settings.WEB_CONCURRENCY = 4
    assert embedding._own_cores() == 8  # a command has them all
    monkeypatch.setattr(heartbeat, "_role", "wsgi")
    for processes, cores in ((1, 8), (4, 2), (16, 1)):
        settings.WEB_CONCURRENCY = processes
        assert embedding._own_cores() == cores
