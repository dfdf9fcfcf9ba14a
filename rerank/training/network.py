"""The network that is trained: the first layers of a BERT and a head on its first token, as `inference` runs it.

Parameters have the names of transformers' BertForSequenceClassification, so that what is saved loads everywhere. Two
differences in how it is computed, none in what: the last layer is computed for the first token alone, and the word
embeddings are kept as they are (11.7 of 15.4 million parameters: freezing them makes a step on a CPU 1.6 times as fast,
and words that training does not show keep their meaning).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

WORDS = "bert.embeddings.word_embeddings.weight"
TOKEN_TYPES = "bert.embeddings.token_type_embeddings.weight"  # noqa: S105
PLAIN_TYPES, SHARED_TYPES = 2, 4
HEAD = ("bert.pooler.", "classifier.")


@dataclass(frozen=True, slots=True)
class Shape:
    """What config.json says of the network."""

    layers: int
    heads: int
    epsilon: float


class Network(nn.Module):
    """(ids, token types, lengths) of padded pairs → one logit a pair."""

    def __init__(self, weights: Mapping[str, np.ndarray], shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.names = list(weights)
        # A dot is not allowed in the name of a parameter.
        for name, value in weights.items():
            parameter = nn.Parameter(torch.from_numpy(np.array(value, dtype=np.float32)), requires_grad=name != WORDS)
            self.register_parameter(_attribute(name), parameter)

    def weight(self, name: str) -> Tensor:
        found: Tensor = getattr(self, _attribute(name))
        return found

    def weights(self) -> dict[str, np.ndarray]:
        """All weights by their published names."""
        return {name: self.weight(name).detach().cpu().numpy().copy() for name in self.names}

    def forward(self, ids: Tensor, types: Tensor, lengths: Tensor) -> Tensor:
        hidden = self._embed(ids, types)
        mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None])[:, None, None, :]
        for layer in range(self.shape.layers):
            last = layer == self.shape.layers - 1
            hidden = self._layer(f"bert.encoder.layer.{layer}", hidden[:, :1] if last else hidden, hidden, mask)
        pooled = torch.tanh(self._linear("bert.pooler.dense", hidden[:, 0]))
        return self._linear("classifier", pooled)[:, 0]

    def _embed(self, ids: Tensor, types: Tensor) -> Tensor:
        words = functional.embedding(ids, self.weight(WORDS))
        positions = self.weight("bert.embeddings.position_embeddings.weight")[: ids.shape[1]]
        kinds = functional.embedding(types, self.weight(TOKEN_TYPES))
        return self._norm("bert.embeddings.LayerNorm", words + positions + kinds)

    def _layer(self, prefix: str, asking: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        """One layer for the tokens of `asking`, which attend to all of `hidden`."""
        attention = f"{prefix}.attention"
        parts = {"query": asking, "key": hidden, "value": hidden}
        query, key, value = (self._by_head(self._linear(f"{attention}.self.{part}", x)) for part, x in parts.items())
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = self._linear(f"{attention}.output.dense", attended.transpose(1, 2).flatten(2))
        middle = self._norm(f"{attention}.output.LayerNorm", mixed + asking)
        inner = functional.gelu(self._linear(f"{prefix}.intermediate.dense", middle))
        return self._norm(f"{prefix}.output.LayerNorm", self._linear(f"{prefix}.output.dense", inner) + middle)

    def _by_head(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(2, (self.shape.heads, -1)).transpose(1, 2)

    def _linear(self, prefix: str, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.weight(f"{prefix}.weight"), self.weight(f"{prefix}.bias"))

    def _norm(self, prefix: str, hidden: Tensor) -> Tensor:
        weight, bias = self.weight(f"{prefix}.weight"), self.weight(f"{prefix}.bias")
        return functional.layer_norm(hidden, weight.shape, weight, bias, self.shape.epsilon)


def start_weights(
    body: Mapping[str, np.ndarray], *, layers: int, shared_token_types: bool, seed: int
) -> dict[str, np.ndarray]:
    """Embeddings and the first `layers` layers of an embedding model, and a new head.

    With `shared_token_types` there are four token types: 0 and 1 as before, 2 and 3 for tokens on both sides.
    """
    generator = np.random.default_rng(seed)
    kept = {f"bert.{name.removeprefix('bert.')}": value for name, value in body.items() if _is_kept(name, layers)}
    width = kept[WORDS].shape[1]
    if shared_token_types:
        plain = kept[TOKEN_TYPES][:PLAIN_TYPES]
        noise = 0.01 * generator.standard_normal(plain.shape)
        kept[TOKEN_TYPES] = np.concatenate([plain, plain + noise]).astype(np.float32)
    return kept | {
        "bert.pooler.dense.weight": (0.02 * generator.standard_normal((width, width))).astype(np.float32),
        "bert.pooler.dense.bias": np.zeros(width, dtype=np.float32),
        "classifier.weight": (0.02 * generator.standard_normal((1, width))).astype(np.float32),
        "classifier.bias": np.zeros(1, dtype=np.float32),
    }


def config_of(body_config: Mapping[str, Any], *, layers: int, shared_token_types: bool) -> dict[str, Any]:
    """config.json of the network, from that of the model it began as."""
    kept = ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps")
    return {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        **{name: body_config[name] for name in kept},
        "num_hidden_layers": layers,
        "max_position_embeddings": body_config["max_position_embeddings"],
        "type_vocab_size": SHARED_TYPES if shared_token_types else PLAIN_TYPES,
        "pad_token_id": body_config.get("pad_token_id") or 0,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }


def shape_of(config: Mapping[str, Any]) -> Shape:
    return Shape(config["num_hidden_layers"], config["num_attention_heads"], config["layer_norm_eps"])


def _is_kept(name: str, layers: int) -> bool:
    parts = name.removeprefix("bert.").split(".")
    if parts[0] == "embeddings":
        return parts[-1] != "position_ids"
    return parts[:2] == ["encoder", "layer"] and int(parts[2]) < layers


def _attribute(name: str) -> str:
    return name.replace(".", "__")
