"""ONNX Runtime on the CPU, over the graph of `inference.bert_graph`."""

import os
from collections.abc import Sequence

import numpy as np

from inference.bert_graph import UnsupportedArchitecture, cross_encoder_graph
from inference.session import cpu_session
from rerank.backends import EncodedPair
from rerank.backends.local import LocalBackend
from rerank.backends.pair_tokenizer import Limits, pad
from rerank.outcomes import ModelUnavailable
from rerank.weights.files import ModelFiles, load_weights

MOST_THREADS = 4  # beyond this, two narrow layers gain nothing


class OnnxBackend(LocalBackend):
    """fp32 on `threads` CPU threads (0: as many as this process may use, at most 4)."""

    name = "onnx"
    device = "cpu"
    dtype = "float32"

    def __init__(self, files: ModelFiles, limits: Limits, threads: int = 0) -> None:
        super().__init__(files, limits)
        try:
            graph = cross_encoder_graph(files.config, load_weights(files.directory))
        except (UnsupportedArchitecture, KeyError) as error:
            raise ModelUnavailable(f"{files.name} cannot be run by the onnx backend: {error}. Use torch.") from error
        self._session = cpu_session(graph, threads or min(MOST_THREADS, len(os.sched_getaffinity(0))))

    def forward(self, pairs: Sequence[EncodedPair], timeout: float) -> np.ndarray:
        ids, types, lengths = pad(pairs, self._pad_id)
        feed = {"input_ids": ids, "token_type_ids": types, "lengths": lengths}
        (logits,) = self._session.run(None, feed)
        return np.asarray(logits)[:, 0]
