"""The folder that is served: `model.onnx`, `tokenizer.json`, `config.json`, and the model card as `README.md`."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank.ordering import Fusion

MODEL, TOKENIZER, CONFIG, CARD = "model.onnx", "tokenizer.json", "config.json", "README.md"
MOST_BYTES = 20 * 2**20  # of the whole folder: it lives in a repository


@dataclass(frozen=True, slots=True)
class Served:
    """What config.json says of a model: its name, how its scores are fused, and how its pairs are made."""

    name: str
    fusion: Fusion
    max_length: int
    shared_token_types: bool


def write_bundle(folder: Path, model: bytes, tokenizer: Path, served: Served) -> Path:
    """Write all but the model card, and return the folder. Raises ValueError where it is too large for a repository."""
    if len(model) + tokenizer.stat().st_size > MOST_BYTES:
        raise ValueError(f"The model has {len(model):,} bytes; with its tokenizer {MOST_BYTES:,} are allowed.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(model)
    shutil.copyfile(tokenizer, folder / TOKENIZER)
    config: dict[str, Any] = {
        "name": served.name,
        "fusion": served.fusion.name,
        "weight": served.fusion.weight,
        "max_length": served.max_length,
        "shared_token_types": served.shared_token_types,
        "sha256": hashlib.sha256(model).hexdigest(),
    }
    if served.fusion.most_characters is not None:
        config["most_characters"] = served.fusion.most_characters
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def write_card(folder: Path, card: str) -> None:
    (folder / CARD).write_text(card, encoding="utf-8")
