"""A cross-encoder exported to one ONNX file, such as the one that this repository ships.

A folder with `model.onnx`, `tokenizer.json` and `config.json`, which says how the model is to be used:

    {"name": "…", "sha256": "… of model.onnx", "fusion": "weighted", "weight": 0.1, "max_length": 256}

and optionally `query_tokens`, `dtype`, `pad_token_id`, `shared_token_types` (whether tokens that stand on both sides
of a pair have types of their own: `rerank.backends.pair_tokenizer`) and `most_characters` (longer passages, in a pool's
mean, are left as retrieval has them: `rerank.ordering.Fusion`). Inputs are any of `input_ids`, `token_type_ids`,
`attention_mask` (batch, tokens) and `lengths` (batch,), int32 or int64; the output is one raw logit a row.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerank.ordering import FUSIONS, Fusion
from rerank.outcomes import ModelUnavailable
from rerank.weights.files import CONFIG, TOKENIZER, ModelFiles, read_config
from rerank.weights.modules import sha256_of

GRAPH = "model.onnx"
BUNDLED = Path(__file__).resolve().parent.parent / "bundled" / "default"


def verify_exported(directory: Path) -> ModelFiles:
    """Check that the files are there and that the graph has the hash which config.json names.

    Raises ModelUnavailable naming the file.
    """
    for name in (CONFIG, TOKENIZER, GRAPH):
        if not (directory / name).is_file():
            raise ModelUnavailable(f"{name} is missing in {directory}.")
    config = read_config(directory)
    if (problem := _problem(config)) is not None:
        raise ModelUnavailable(f"{CONFIG} in {directory}: {problem}.")
    digest = sha256_of(directory / GRAPH)
    if digest != config["sha256"]:
        raise ModelUnavailable(f"{GRAPH} in {directory} does not have the hash that its {CONFIG} names.")
    return ModelFiles(
        directory=directory,
        name=config["name"],
        revision=digest[:12],
        config=config,
        graph=directory / GRAPH,
        fusion=Fusion(config["fusion"], float(config.get("weight", 0.0)), config.get("most_characters")),
    )


def _problem(config: Mapping[str, Any]) -> str | None:
    """What is wrong with a config, or None."""
    if not isinstance(config.get("name"), str) or not config["name"]:
        return "name is no text"
    if config.get("fusion") not in FUSIONS:
        return f"fusion is none of {', '.join(FUSIONS)}"
    if not isinstance(config.get("weight", 0.0), int | float) or config.get("weight", 0.0) < 0:
        return "weight is no number from 0 up"
    if not isinstance(config.get("max_length"), int) or config["max_length"] < 16:
        return "max_length is no number of tokens"
    if not isinstance(config.get("most_characters", 1), int) or config.get("most_characters", 1) < 1:
        return "most_characters is no whole number from 1 up"
    return None if isinstance(config.get("sha256"), str) else "sha256 is missing"
