import hashlib
import json
from pathlib import Path

import pytest

from rerank.backends.onnx_backend import OnnxBackend
from rerank.backends.pair_tokenizer import Limits
from rerank.ordering import Fusion
from rerank.training.bundle import MOST_BYTES, Served, write_bundle, write_card
from rerank.training.export import by_graph, fp32_model, int8_model
from rerank.training.network import config_of
from rerank.training.scoring import scores_of
from rerank.weights.exported import verify_exported
from tests.rerank.training import small

SERVED = Served("a model", Fusion("weighted", 0.1), 160, True)


def test_the_folder_says_what_is_in_it(body: Path, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "model", b"graph", body / "tokenizer.json", SERVED)
    write_card(folder, "# Card\n")
    assert json.loads((folder / "config.json").read_text()) == {
        "name": "a model",
        "fusion": "weighted",
        "weight": 0.1,
        "max_length": 160,
        "shared_token_types": True,
        "sha256": hashlib.sha256(b"graph").hexdigest(),
    }
    assert (folder / "tokenizer.json").read_bytes() == (body / "tokenizer.json").read_bytes()
    assert (folder / "README.md").read_text() == "# Card\n"


def test_what_is_too_large_for_a_repository_is_refused(body: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bytes"):
        write_bundle(tmp_path / "model", bytes(MOST_BYTES), body / "tokenizer.json", SERVED)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_served_scores_as_what_was_trained(body: Path, tmp_path: Path, shared: bool) -> None:
    network, tokenised = small.network(body, shared=shared), small.tokenised(body, shared=shared)
    model = int8_model(fp32_model(config_of(small.SMALL, layers=2, shared_token_types=shared), network.weights()))
    folder = write_bundle(
        tmp_path, model, body / "tokenizer.json", Served("a model", Fusion("weighted", 0.1, 400), 32, shared)
    )
    backend = OnnxBackend(verify_exported(folder), Limits(), threads=1)
    question, passages = tokenised.pools.questions[0], tokenised.pools.passages(0, range(24))
    trained = scores_of(tokenised, by_graph(model))[0]
    assert backend.predict([(question, passage) for passage in passages]) == pytest.approx(trained, abs=1e-5)
    assert backend.model.fusion == Fusion("weighted", 0.1, 400)
