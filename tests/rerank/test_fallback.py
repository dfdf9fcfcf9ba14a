"""The model that is served while the specified one is not at hand."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from asgiref.sync import async_to_sync
from onnx import TensorProto, helper
from pytest_django import Settings

from rerank import SkipReason, config, health, metrics, rerank_now, rerank_with_reason, runtime
from rerank.backends.onnx_backend import OnnxBackend
from rerank.backends.pair_tokenizer import Limits
from rerank.outcomes import ModelUnavailable, Reranker
from rerank.weights import exported
from rerank.weights.exported import verify_exported
from rerank.weights.files import ModelFiles
from tests.rerank.factories import export_model, write_export_config, write_small_model

PASSAGES = ["Paris is the capital of France.", "Bananas are yellow.", "", "The night train leaves at ten."]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return write_small_model(tmp_path_factory.mktemp("original"))


@pytest.fixture
def bundle(original: ModelFiles, tmp_path: Path) -> Path:
    return export_model(original, tmp_path / "bundle")


@pytest.fixture(autouse=True)
def _absent(settings: Settings, tmp_path: Path, bundle: Path) -> None:
    settings.RERANK_MODEL, settings.RERANK_GOLDEN = str(tmp_path / "absent"), []
    settings.RERANK_FALLBACK_MODEL = str(bundle)
    settings.RERANK_TIMEOUT_MS = 10_000


def served_by() -> Reranker | None:
    runtime.reset()._load_quietly()
    return rerank_now("capital of France", PASSAGES, retrieval_scores=[0.4, 0.3, 0.2, 0.1]).reranker


def test_it_is_served_with_its_own_fusion_and_says_so(original: ModelFiles, settings: Settings) -> None:
    settings.RERANK_FUSION = "replace"  # for the specified model
    counted = metrics.REORDERED.labels("tiny", "weighted")._value
    before = counted.get()
    assert served_by() == Reranker("tiny", "weighted")
    assert counted.get() == before + 1
    assert (health.report()["model"], health.state()) == ("tiny", "ok")
    expected = OnnxBackend(original, Limits()).predict([("capital of France", text) for text in PASSAGES])
    assert rerank_now("capital of France", PASSAGES).scores == pytest.approx(expected, abs=1e-5)


def test_the_specified_model_comes_first(original: ModelFiles, settings: Settings) -> None:
    settings.RERANK_MODEL = str(original.directory)
    assert served_by() == Reranker(str(original.directory), "replace")


@pytest.mark.parametrize("fallback", ["", "bundled", "/nonexistent"])
def test_where_there_is_none_the_specified_model_is_missed(
    fallback: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "BUNDLED", tmp_path / "not shipped")
    settings.RERANK_FALLBACK_MODEL = fallback
    assert served_by() is None
    assert rerank_now("q", PASSAGES).skip_reason is SkipReason.MODEL_UNAVAILABLE
    assert "RERANK_MODEL is no directory" in str(health.report()["detail"])


@pytest.mark.parametrize("most", [19, 20])
def test_long_passages_keep_their_order_and_the_model_is_not_asked(bundle: Path, most: int) -> None:
    """The passages have 20 characters in the mean."""
    write_export_config(bundle, most_characters=most)
    asked = metrics.LATENCY_MS.summary(), metrics.outcome_counts().get("long_passages", 0)
    expected = None if most == 19 else Reranker("tiny", "weighted")
    assert served_by() == expected
    reranking = rerank_now("capital of France", PASSAGES)
    coroutine = async_to_sync(rerank_with_reason)("capital of France", PASSAGES)
    assert {reranking.skip_reason, coroutine.skip_reason} == {None if expected else SkipReason.LONG_PASSAGES}
    if not expected:
        assert reranking.order == coroutine.order == (0, 1, 2, 3)
        assert metrics.outcome_counts()["long_passages"] == asked[1] + 3
        assert metrics.LATENCY_MS.summary() == asked[0]


def test_bundled_is_the_folder_of_the_repository(
    bundle: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "BUNDLED", bundle)
    settings.RERANK_FALLBACK_MODEL = "bundled"
    assert served_by() == Reranker("tiny", "weighted")
    assert exported.BUNDLED.parts[-3:] == ("rerank", "bundled", "default")


def test_a_graph_of_another_hash_is_not_served(bundle: Path) -> None:
    with (bundle / exported.GRAPH).open("ab") as file:
        file.write(b"x")
    assert served_by() is None
    assert "model.onnx" in str(health.report()["detail"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name"),
        ({"fusion": "sum"}, "fusion"),
        ({"weight": -1}, "weight"),
        ({"weight": "0.1"}, "weight"),
        ({"max_length": None}, "max_length"),
        ({"sha256": None}, "sha256"),
        ({"most_characters": 0}, "most_characters"),
        ({"most_characters": None}, "most_characters"),
    ],
)
def test_a_config_that_is_not_understood_is_named(bundle: Path, changes: dict[str, Any], message: str) -> None:
    write_export_config(bundle, **changes)
    with pytest.raises(ModelUnavailable, match=message):
        verify_exported(bundle)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", exported.GRAPH])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(ModelUnavailable, match=name):
        verify_exported(bundle)


def test_it_reads_no_more_than_its_length(bundle: Path) -> None:
    write_export_config(bundle, max_length=16, query_tokens=4)
    backend = OnnxBackend(verify_exported(bundle), Limits())
    (pair,) = backend.encode("one two three four five six seven", ["many words " * 100])
    assert pair.tokens == 16


def test_a_graph_with_the_inputs_of_an_exporter_is_fed_them(bundle: Path) -> None:
    """int64 ids and a mask: this one sums the ids that the mask leaves, so padding must not count."""
    ids, mask = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    )
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axes"], ["sums"], keepdims=0),
        helper.make_node("Cast", ["sums"], ["logits"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "sums",
        [ids, mask],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, bundle / exported.GRAPH)
    write_export_config(bundle, pad_token_id=5)
    backend = OnnxBackend(verify_exported(bundle), Limits())
    pairs = [("q", "short"), ("q", "a rather longer passage")]
    sums = [float(backend.encode(query, [text])[0].payload[0].sum()) for query, text in pairs]
    assert np.array_equal(backend.predict(pairs), sums)
