"""The graph, the tokenizer and the three backends against each other and against sentence-transformers."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from tokenizers import Tokenizer

from inference.bert_graph import UnsupportedArchitecture, cross_encoder_graph
from rerank.backends import Backend
from rerank.backends.onnx_backend import OnnxBackend
from rerank.backends.pair_tokenizer import Limits, PairTokenizer
from rerank.backends.remote import RemoteBackend
from rerank.backends.torch_backend import TorchBackend
from rerank.outcomes import ModelUnavailable
from rerank.weights.files import ModelChoice, ModelFiles, load_weights, locate, verify
from rerank.weights.modules import sha256_of

QUERY = "what does the agent remember about trains?"
PASSAGES = [
    "The agent prefers trains over planes whenever the journey takes less than six hours.",
    "Tea.",
    "",
    " ".join(["An unusually long memory about breakfast, weather and the neighbours' dog."] * 20),
    "Züge, поезда, 電車 and 🚂",
]


def choice(directory: Path, sha256: str = "") -> ModelChoice:
    return ModelChoice(str(directory), "", sha256, allow_download=False)


@pytest.fixture(scope="module")
def files(model_dir: Path) -> ModelFiles:
    return verify(model_dir, choice(model_dir))


@pytest.fixture(scope="module")
def torch_backend(files: ModelFiles) -> TorchBackend:
    return TorchBackend(files, Limits())


@pytest.fixture(scope="module")
def onnx_backend(files: ModelFiles) -> OnnxBackend:
    return OnnxBackend(files, Limits())


@pytest.fixture
def remote_backend(torch_backend: TorchBackend) -> Iterator[RemoteBackend]:
    """A text-embeddings-inference server's answers, computed by torch, behind httpx's mock transport."""
    backend = RemoteBackend("http://rerank.test/", limits=Limits(), transport=tei(torch_backend, []))
    yield backend
    backend.close()


def tei(scorer: Backend, requests: list[dict[str, Any]]) -> httpx2.MockTransport:
    def answer(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        requests.append(body)
        if len(body["texts"]) > 32:
            return httpx2.Response(422)
        scores = scorer.predict([(body["query"], text) for text in body["texts"]])
        ranks = [{"index": index, "score": float(score)} for index, score in enumerate(scores)]
        return httpx2.Response(200, json=sorted(ranks, key=lambda rank: -rank["score"]))

    return httpx2.MockTransport(answer)


def pairs() -> list[tuple[str, str]]:
    return [(QUERY, passage) for passage in PASSAGES]


class TestParity:
    @pytest.mark.parametrize("name", ["torch_backend", "onnx_backend", "remote_backend"])
    def test_fp32_backends_agree_with_sentence_transformers(
        self, name: str, torch_backend: TorchBackend, request: pytest.FixtureRequest
    ) -> None:
        expected = torch_backend.cross_encoder.predict(pairs(), convert_to_tensor=True, show_progress_bar=False)
        found = request.getfixturevalue(name).predict(pairs())
        assert np.ptp(found) > 0.05  # they differ, so agreeing says something
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)

    def test_batch_and_padding_do_not_change_a_score(self, onnx_backend: OnnxBackend) -> None:
        together = onnx_backend.predict(pairs())
        alone = [onnx_backend.predict([pair])[0] for pair in pairs()]
        np.testing.assert_allclose(together, alone, atol=1e-5)

    def test_a_deeper_model_agrees_too(self, tmp_path: Path) -> None:
        """Three layers: the fused middle layer and the first-token last layer both count."""
        from rerank.weights import random_model

        deep = {**random_model.TINYBERT, "num_hidden_layers": 3}
        directory = random_model.write_random_model(tmp_path, config=deep, seed=3)
        files = verify(directory, choice(directory))
        onnx, torch = OnnxBackend(files, Limits()), TorchBackend(files, Limits())
        np.testing.assert_allclose(onnx.predict(pairs()), torch.predict(pairs()), atol=1e-3)

    @pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="no CUDA device on this machine")
    def test_fp16_on_a_gpu_agrees_in_order(self, files: ModelFiles, onnx_backend: OnnxBackend) -> None:
        gpu = TorchBackend(files, Limits(), "cuda:0")
        assert gpu.dtype == "float16"
        expected, found = onnx_backend.predict(pairs()), gpu.predict(pairs())
        np.testing.assert_allclose(found, expected, atol=0.02)
        clear = [(a, b) for a in range(5) for b in range(5) if expected[a] > expected[b] + 0.02]
        assert all(found[a] > found[b] for a, b in clear)


class TestPairTokenizer:
    def tokenizer(self, model_dir: Path, **limits: int) -> PairTokenizer:
        return PairTokenizer.from_directory(model_dir, Limits(**limits))

    def test_assembles_what_the_tokenizer_itself_would(self, model_dir: Path) -> None:
        reference = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        reference.no_truncation()
        reference.no_padding()
        for pair, passage in zip(self.tokenizer(model_dir).encode(QUERY, PASSAGES), PASSAGES, strict=True):
            expected = reference.encode(QUERY, passage)
            ids, types = pair.payload
            assert ids.tolist() == expected.ids
            assert types.tolist() == expected.type_ids
            assert pair.tokens == len(expected.ids)

    def test_caps_the_query_and_cuts_only_the_passage(self, model_dir: Path) -> None:
        (pair,) = self.tokenizer(model_dir, pair=40, query=10).encode("tea " * 50, ["coffee " * 100])
        ids, types = pair.payload
        assert pair.tokens == 40
        assert ids.tolist() == [101, *[5572] * 10, 102, *[4157] * 27, 102]
        assert types.tolist() == [0] * 12 + [1] * 28


class TestModelFiles:
    def test_hash_is_checked_when_one_is_set(self, model_dir: Path) -> None:
        digest = sha256_of(model_dir / "model.safetensors")
        assert verify(model_dir, choice(model_dir, digest)).directory == model_dir
        with pytest.raises(ModelUnavailable, match="RERANK_MODEL_SHA256"):
            verify(model_dir, choice(model_dir, "0" * 64))

    def test_a_path_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(ModelUnavailable, match="no directory"):
            locate(choice(tmp_path / "absent"))

    def test_a_graph_refuses_what_it_does_not_know(self, files: ModelFiles) -> None:
        for change in ({"model_type": "xlm-roberta"}, {"hidden_act": "relu"}):
            with pytest.raises(UnsupportedArchitecture):
                cross_encoder_graph({**files.config, **change}, {})
        weights = load_weights(files.directory)
        del weights["classifier.weight"]
        with pytest.raises(KeyError, match="classifier"):
            cross_encoder_graph(files.config, weights)


class TestRemote:
    def test_asks_32_texts_at_a_time_for_raw_scores(self, onnx_backend: OnnxBackend) -> None:
        requests: list[dict[str, Any]] = []
        backend = RemoteBackend("http://rerank.test", limits=Limits(), transport=tei(onnx_backend, requests))
        backend.predict([(QUERY, f"passage {number}") for number in range(70)])
        assert [len(request["texts"]) for request in requests] == [32, 32, 6]
        assert all(request["raw_scores"] and request["truncate"] for request in requests)

    @pytest.mark.parametrize(
        "ranks",
        [[], [{"index": 0, "score": 1.0}], [{"index": 0, "score": 1.0}] * 2, [{"index": 7, "score": 1.0}] * 2],
        ids=["none", "too few", "twice the same", "of another text"],
    )
    def test_an_answer_that_does_not_fit_is_refused(self, ranks: Sequence[Any]) -> None:
        transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=ranks))
        backend = RemoteBackend("http://rerank.test", limits=Limits(), transport=transport)
        with pytest.raises(ValueError, match="of 2 texts"):
            backend.forward(backend.encode("q", ["a", "b"]), timeout=1)

    def test_an_error_status_raises(self) -> None:
        transport = httpx2.MockTransport(lambda request: httpx2.Response(503))
        backend = RemoteBackend("http://rerank.test", limits=Limits(), transport=transport)
        with pytest.raises(httpx2.HTTPStatusError):
            backend.forward(backend.encode("q", ["a"]), timeout=1)

    def test_no_time_left_asks_nothing(self) -> None:
        requests: list[dict[str, Any]] = []
        backend = RemoteBackend("http://rerank.test", limits=Limits(), transport=tei(None, requests))  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            backend.forward(backend.encode("q", ["a"]), timeout=0)
        assert requests == []
