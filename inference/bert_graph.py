"""BERT as an ONNX graph, built straight from its safetensors weights: a cross-encoder, or an embedding model.

Why not an exporter: the graph is small and known, and building it by hand needs neither torch, an exporter nor a cached
file that may go stale. It also allows two savings no exporter makes, both exact:

- ONNX Runtime's fused transformer operators (`com.microsoft`) are written down directly.
- Where only the first token is read (a score, or an embedding pooled by it), the last layer computes queries,
  projection and feed-forward for that one token of each row instead of for all of them.

Inputs:  `input_ids`, `token_type_ids` int32 (batch, tokens), right-padded; `lengths` int32 (batch,), in tokens.
Output:  `logits` float32 (batch, 1), raw; or `embeddings` float32 (batch, width).
Source:  Devlin et al., BERT, arXiv:1810.04805; operators: onnxruntime's ContribOperators.md. Mean pooling: Reimers and
         Gurevych, Sentence-BERT, arXiv:1908.10084.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FUSED = "com.microsoft"
GELU_OPERATORS = {"gelu": "BiasGelu", "gelu_new": "FastGelu", "gelu_pytorch_tanh": "FastGelu"}

Weights = Mapping[str, np.ndarray]


class Pooling(StrEnum):
    """How the vectors of a text's tokens become one."""

    MEAN = "mean"
    CLS = "cls"


class UnsupportedArchitecture(ValueError):
    """The model is no BERT of the kind this graph knows."""


def check_supported(config: Mapping[str, Any]) -> None:
    """Raise `UnsupportedArchitecture`, saying why, unless `config` (config.json) describes a graph we build."""
    if config.get("model_type") != "bert":
        raise UnsupportedArchitecture(f"model type {config.get('model_type')!r} is not 'bert'")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UnsupportedArchitecture("relative position embeddings")
    if config.get("hidden_act", "gelu") not in GELU_OPERATORS:
        raise UnsupportedArchitecture(f"activation {config.get('hidden_act')!r}")


def cross_encoder_graph(config: Mapping[str, Any], weights: Weights) -> bytes:
    """The serialised classifier with one label for `config` (config.json) and `weights` (safetensors names to arrays).

    Raises UnsupportedArchitecture for another kind of model, KeyError naming a missing weight.
    """
    builder = _GraphBuilder(config, weights, prefix="bert.")
    builder.score(builder.first_token())
    return builder.serialised("logits", 1)


def embedding_graph(config: Mapping[str, Any], weights: Weights, *, pooling: Pooling, normalize: bool) -> bytes:
    """The serialised embedding model. `normalize`: scale each embedding to length 1. Raises as above."""
    builder = _GraphBuilder(config, weights, prefix="bert." if "bert.embeddings.LayerNorm.weight" in weights else "")
    pooled = builder.mean() if pooling is Pooling.MEAN else builder.squeezed(builder.first_token())
    builder.finish("embeddings", pooled, normalize=normalize)
    return builder.serialised("embeddings", int(config["hidden_size"]))


class _GraphBuilder:
    """Collects nodes and initializers; each method adds one part of the network and returns its output's name.

    `prefix`: what the names of the body's weights begin with.
    """

    def __init__(self, config: Mapping[str, Any], weights: Weights, prefix: str) -> None:
        check_supported(config)
        self.weights = weights
        self.prefix = prefix
        self.layers = int(config["num_hidden_layers"])
        self.heads = int(config["num_attention_heads"])
        self.epsilon = float(config.get("layer_norm_eps", 1e-12))
        self.gelu = GELU_OPERATORS[config.get("hidden_act", "gelu")]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def serialised(self, output: str, width: int) -> bytes:
        """The model so far, with one output of shape (batch, width)."""
        graph = helper.make_graph(
            self.nodes,
            "bert",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["batch", "tokens"]),
                helper.make_tensor_value_info("token_type_ids", TensorProto.INT32, ["batch", "tokens"]),
                helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]),
            ],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
        model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
        return model

    # --- The body -----------------------------------------------------------------------------------------------------

    def first_token(self) -> str:
        """The last layer's vector of the first token: (batch, 1, width)."""
        return self._last_layer(self.layers - 1, self._body(self.layers - 1))

    def mean(self) -> str:
        """The mean of the last layer's vectors over each row's own tokens: (batch, width)."""
        hidden = self._body(self.layers)
        tokens = self._add("Gather", [self._add("Shape", [hidden]), self._constant("one", np.array(1))])
        places = self._add("Range", [self._constant("zero", np.array(0)), tokens, self._constant("one", np.array(1))])
        lengths = self._add("Cast", ["lengths"], to=TensorProto.INT64)
        row_lengths = self._add("Unsqueeze", [lengths, self._constant("axis.1", np.array([1]))])
        inside = self._add("Cast", [self._add("Less", [places, row_lengths])], to=TensorProto.FLOAT)
        # (batch, 1, tokens) times (batch, tokens, width): the sum over a row's tokens.
        mask = self._add("Unsqueeze", [inside, self._constant("axis.1", np.array([1]))])
        summed = self.squeezed(self._add("MatMul", [mask, hidden]))
        return self._add("Div", [summed, self._add("Cast", [row_lengths], to=TensorProto.FLOAT)])

    def squeezed(self, name: str) -> str:
        """(batch, 1, width) → (batch, width)."""
        return self._add("Squeeze", [name, self._constant("axis.1", np.array([1]))])

    def _body(self, layers: int) -> str:
        hidden = self._embeddings()
        for layer in range(layers):
            hidden = self._layer(layer, hidden)
        return hidden

    def _embeddings(self) -> str:
        parts = [
            self._weight(f"{self.prefix}embeddings.{part}_embeddings.weight")
            for part in ("word", "position", "token_type")
        ]
        norm = self._norm(f"{self.prefix}embeddings.LayerNorm")
        return self._add(
            "EmbedLayerNormalization",
            ["input_ids", "token_type_ids", *parts, *norm],
            outputs=2,  # the second is a mask index we do not use
            domain=FUSED,
            epsilon=self.epsilon,
        )

    def _layer(self, layer: int, hidden: str) -> str:
        prefix = f"{self.prefix}encoder.layer.{layer}"
        stacked = [self.weights[f"{prefix}.attention.self.{part}.weight"].T for part in ("query", "key", "value")]
        weight = self._constant(f"{prefix}.qkv.weight", np.concatenate(stacked, axis=1))
        attended = self._add(
            "Attention",
            [hidden, weight, self._qkv_bias(prefix), "lengths"],
            domain=FUSED,
            num_heads=self.heads,
        )
        return self._feed_forward(prefix, hidden, attended)

    def _last_layer(self, layer: int, hidden: str) -> str:
        """The last layer for the first token alone: (batch, tokens, width) → (batch, 1, width)."""
        prefix = f"{self.prefix}encoder.layer.{layer}"
        first = self._add("Slice", [hidden, *(self._constant(f"slice.{k}", np.array([v])) for k, v in _FIRST_TOKEN)])
        sources = {"query": first, "key": hidden, "value": hidden}
        projected = [self._matmul(f"{prefix}.attention.self.{part}", source) for part, source in sources.items()]
        attended = self._add(
            "MultiHeadAttention",
            [*projected, self._qkv_bias(prefix), "lengths"],
            domain=FUSED,
            num_heads=self.heads,
        )
        return self._feed_forward(prefix, first, attended)

    def _feed_forward(self, prefix: str, hidden: str, attended: str) -> str:
        mixed = self._matmul(f"{prefix}.attention.output.dense", attended)
        hidden = self._add_and_norm(f"{prefix}.attention.output", mixed, hidden)
        inner = self._matmul(f"{prefix}.intermediate.dense", hidden)
        inner = self._add(self.gelu, [inner, self._weight(f"{prefix}.intermediate.dense.bias")], domain=FUSED)
        return self._add_and_norm(f"{prefix}.output", self._matmul(f"{prefix}.output.dense", inner), hidden)

    # --- The ends -----------------------------------------------------------------------------------------------------

    def score(self, first_token: str) -> None:
        """Pooler and classifier: (batch, 1, width) → `logits` (batch, 1)."""
        pooled = self._add("Tanh", [self._linear(f"{self.prefix}pooler.dense", self.squeezed(first_token))])
        self._linear("classifier", pooled, output="logits")

    def finish(self, output: str, pooled: str, *, normalize: bool) -> None:
        """(batch, width) → `output`, of length 1 with `normalize`."""
        if normalize:
            self._add("LpNormalization", [pooled], output=output, axis=-1, p=2)
        else:
            self._add("Identity", [pooled], output=output)

    # --- Parts --------------------------------------------------------------------------------------------------------

    def _add_and_norm(self, prefix: str, inner: str, residual: str) -> str:
        inputs = [inner, residual, *self._norm(f"{prefix}.LayerNorm"), self._weight(f"{prefix}.dense.bias")]
        return self._add("SkipLayerNormalization", inputs, domain=FUSED, epsilon=self.epsilon)

    def _qkv_bias(self, prefix: str) -> str:
        parts = [self.weights[f"{prefix}.attention.self.{part}.bias"] for part in ("query", "key", "value")]
        return self._constant(f"{prefix}.qkv.bias", np.concatenate(parts))

    def _norm(self, prefix: str) -> list[str]:
        return [self._weight(f"{prefix}.weight"), self._weight(f"{prefix}.bias")]

    def _matmul(self, prefix: str, source: str) -> str:
        weight = self._constant(f"{prefix}.weight.T", self.weights[f"{prefix}.weight"].T)
        return self._add("MatMul", [source, weight])

    def _linear(self, prefix: str, source: str, output: str | None = None) -> str:
        inputs = [source, self._weight(f"{prefix}.weight"), self._weight(f"{prefix}.bias")]
        return self._add("Gemm", inputs, output=output, transB=1)

    def _weight(self, name: str) -> str:
        return self._constant(name, self.weights[name])

    def _constant(self, name: str, value: np.ndarray) -> str:
        dtype = np.float32 if value.dtype.kind == "f" else np.int64
        self.constants.setdefault(name, np.ascontiguousarray(value, dtype=dtype))
        return name

    def _add(
        self,
        operator: str,
        inputs: list[str],
        *,
        output: str | None = None,
        outputs: int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        names = [output or f"{operator}.{len(self.nodes)}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return names[0]


_FIRST_TOKEN = (("starts", 0), ("ends", 1), ("axes", 1))
