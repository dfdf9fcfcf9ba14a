"""ONNX Runtime on the CPU, over the graph of `inference.bert_graph` or a model's own ONNX file."""

from collections.abc import Sequence

import numpy as np

from inference.bert_graph import UnsupportedArchitecture, cross_encoder_graph
from inference.cores import own_cores
from inference.engine.jobs import Encoded
from inference.session import cpu_session
from rerank.backends.local import LocalBackend
from rerank.backends.pair_tokenizer import Limits, pad
from rerank.outcomes import ModelUnavailable
from rerank.weights.files import ModelFiles, load_weights

MOST_THREADS = 4  # beyond this, two narrow layers gain nothing


class OnnxBackend(LocalBackend):
    """On `threads` CPU threads (0: this process's part of the cores, at most 4); fp32, or as an exported file says."""

    name = "onnx"
    device = "cpu"

    def __init__(self, files: ModelFiles, limits: Limits, threads: int = 0) -> None:
        super().__init__(files, limits)
        self.dtype = str(files.config.get("dtype", "float32")) if files.graph else "float32"
        try:
            self._session = cpu_session(_graph(files), threads or min(MOST_THREADS, own_cores()))
        except (UnsupportedArchitecture, KeyError) as error:
            raise ModelUnavailable(f"{files.name} cannot be run by the onnx backend: {error}. Use torch.") from error
        self._inputs = {
            each.name: np.int64 if "int64" in each.type else np.int32 for each in self._session.get_inputs()
        }

    def forward(self, pairs: Sequence[Encoded], timeout: float) -> np.ndarray:
        ids, types, lengths = pad(pairs, self._pad_id)
        given = {"input_ids": ids, "token_type_ids": types, "lengths": lengths}
        if "attention_mask" in self._inputs:
            given["attention_mask"] = np.arange(ids.shape[1]) < lengths[:, None]
        feed = {name: given[name].astype(dtype, copy=False) for name, dtype in self._inputs.items()}
        (logits,) = self._session.run(None, feed)
        return np.asarray(logits, dtype=np.float32).reshape(len(pairs), -1)[:, 0]


def _graph(files: ModelFiles) -> bytes:
    return files.graph.read_bytes() if files.graph else cross_encoder_graph(files.config, load_weights(files.directory))
