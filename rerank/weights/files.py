"""Where the weights lie, and whether they are whole.

A model is a directory with `config.json`, `tokenizer.json` and `model.safetensors`, and the folders of its modules
where it has some. Pickled weights are never read.
Nothing here reaches out to the network unless the choice allows it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.weights import UnreadableWeights, read_weights
from rerank.ordering import Fusion
from rerank.outcomes import ModelUnavailable
from rerank.weights.modules import MODULES, WEIGHTS, is_modular, weight_files, weights_digest

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
LIBRARY_CONFIG = "config_sentence_transformers.json"
# What the torch backend's loader reads besides.
EXTRAS = (
    *("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
    *(MODULES, LIBRARY_CONFIG, "sentence_bert_config.json"),
    *(f"[0-9]*_*/{name}" for name in (CONFIG, WEIGHTS)),
)
REMEDY = "Run `manage.py fetch_models` where the model hub can be reached, or set RERANK_MODEL to a local directory."


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which weights, and how they may be had."""

    name: str
    revision: str
    sha256: str
    allow_download: bool


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A verified model on disk. `modular`: its head lies in folders of its own. `graph`: its ONNX file, for one that
    was exported; `fusion`: how it wants to be used, None for what the settings say."""

    directory: Path
    name: str
    revision: str
    config: dict[str, Any]
    modular: bool = False
    graph: Path | None = None
    fusion: Fusion | None = None


def locate(choice: ModelChoice) -> Path:
    """The model's directory: RERANK_MODEL itself when it is one, else the hub cache's snapshot of the pinned revision.

    Raises ModelUnavailable. Downloads only with `allow_download`.
    """
    local = Path(choice.name).expanduser()
    if local.is_dir():
        return local
    if local.is_absolute() or choice.name.startswith((".", "~")):
        raise ModelUnavailable(f"RERANK_MODEL is no directory: {choice.name}. {REMEDY}")
    return _snapshot(choice)


def _snapshot(choice: ModelChoice) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                choice.name,
                revision=choice.revision,
                allow_patterns=[CONFIG, TOKENIZER, WEIGHTS, *EXTRAS],
                local_files_only=not choice.allow_download,
            )
        )
    except LocalEntryNotFoundError as error:
        raise ModelUnavailable(f"{choice.name}@{choice.revision} is not on this machine. {REMEDY}") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelUnavailable(f"{choice.name}: the model hub gave {type(error).__name__}. {REMEDY}") from error


def verify(directory: Path, choice: ModelChoice) -> ModelFiles:
    """Check that the files are there, readable and finite, and have the hash of RERANK_MODEL_SHA256 where one is set
    (rerank.weights.modules.weights_digest, which covers every file of weights).

    Raises ModelUnavailable naming the file.
    """
    for name in (CONFIG, TOKENIZER, WEIGHTS):
        if not (directory / name).is_file():
            raise ModelUnavailable(f"{name} is missing in {directory}. {REMEDY}")
    if choice.sha256 and weights_digest(directory) != choice.sha256.lower():
        raise ModelUnavailable(f"{WEIGHTS} in {directory} does not have the hash that RERANK_MODEL_SHA256 names.")
    for file in weight_files(directory):
        load_weights(file.parent)
    config = _activation(directory) | read_config(directory)
    return ModelFiles(directory, choice.name, choice.revision, config, modular=is_modular(directory))


def load_weights(directory: Path) -> dict[str, np.ndarray]:
    """All tensors by name. Raises ModelUnavailable when the file is cut short, garbled or holds NaN or infinity."""
    try:
        return read_weights(directory / WEIGHTS)
    except UnreadableWeights as error:
        raise ModelUnavailable(f"{WEIGHTS} in {directory} {error}. {REMEDY}") from error


def read_config(directory: Path, name: str = CONFIG) -> dict[str, Any]:
    """config.json, or another of its kind. Raises ModelUnavailable unless it holds an object."""
    try:
        config = json.loads((directory / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{name} in {directory} cannot be read. {REMEDY}") from error
    if not isinstance(config, dict):
        raise ModelUnavailable(f"{name} in {directory} holds no object. {REMEDY}")
    return config


def _activation(directory: Path) -> dict[str, Any]:
    """A modular model's activation, which the library keeps in a file of its own, where config.json would have it."""
    if not (directory / LIBRARY_CONFIG).is_file():
        return {}
    named = read_config(directory, LIBRARY_CONFIG).get("activation_fn")
    return {"sentence_transformers": {"activation_fn": named}} if named else {}
