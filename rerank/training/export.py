"""The trained network as ONNX files: in fp32, and with its matrices as 8-bit integers, which the repository ships.

8 bits are how the matrices are stored, each row with a scale of its own; ONNX Runtime turns them into fp32 once, when
it loads them. So the file has a quarter of the size, and the scores hardly move.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inference.bert_graph import cross_encoder_graph
from inference.session import cpu_session
from rerank.training.pairs import Batch
from rerank.training.scoring import ScoreBatch

SMALLEST = 4096  # elements; vectors stay as they are
STEPS = 127


def fp32_model(config: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> bytes:
    """The graph that serving builds from published weights."""
    return cross_encoder_graph(config, weights)


def int8_model(graph: bytes) -> bytes:
    """The same graph with every matrix in 8 bits: a constant becomes Cast(int8) · scale, folded when it is loaded."""
    model = onnx.load_from_string(graph)
    kept, nodes = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < SMALLEST:
            kept.append(tensor)
            continue
        integers, scale = quantised(values)
        name = tensor.name
        kept += [numpy_helper.from_array(integers, f"{name}.int8"), numpy_helper.from_array(scale, f"{name}.scale")]
        nodes += [
            helper.make_node("Cast", [f"{name}.int8"], [f"{name}.whole"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.whole", f"{name}.scale"], [name]),
        ]
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    found: bytes = model.SerializeToString()
    return found


def quantised(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 values and float32 scales, one a row (rows, 1): matrix ≈ values · scales."""
    scale = np.maximum(np.abs(matrix).max(axis=1, keepdims=True), 1e-12) / STEPS
    return np.rint(matrix / scale).astype(np.int8), scale.astype(np.float32)


def by_graph(graph: bytes, threads: int = 1) -> ScoreBatch:
    """Scores by ONNX Runtime, as serving runs it."""
    session = cpu_session(graph, threads)

    def score(batch: Batch) -> np.ndarray:
        feed = {"input_ids": batch.ids, "token_type_ids": batch.types, "lengths": batch.lengths}
        (logits,) = session.run(None, feed)
        return np.asarray(logits)[:, 0]

    return score
