"""What computes scores, and the protocol between it and the engine.

    onnx_backend    ONNX Runtime on the CPU
    torch_backend   sentence-transformers' CrossEncoder on the CPU or a GPU
    remote          a server with text-embeddings-inference's `/rerank`
    local           what the two in this process share
    pair_tokenizer  (query, passage) into token ids
    text_cleaning   any value made safe for a tokenizer

Imports `rerank.weights`, `rerank.ordering`, `rerank.outcomes` and `inference`; no settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from inference.engine import backend
from inference.engine.jobs import Encoded
from rerank.ordering import Fusion


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Which model a backend runs, for answers and metrics, and how its scores are used: None as the settings say."""

    name: str
    revision: str = ""
    fusion: Fusion | None = None


class Backend(backend.Backend, Protocol):
    """Scores pairs with raw logits: one number a pair. Used by `workers` threads of the engine, and by nobody else."""

    model: ServedModel
    name: str
    device: str
    dtype: str
    # Whether CrossEncoder.predict would give this model's logits as they are, rather than their sigmoid.
    gives_logits: bool

    def encode(self, query: str, passages: Sequence[str]) -> list[Encoded]:
        """Tokenise one request's pairs, one for each passage in order. Texts come clean and cut."""

    def forward(self, pairs: Sequence[Encoded], timeout: float) -> np.ndarray:
        """Raw logits, float32 of shape (len(pairs),). `timeout` in seconds is for backends that can keep one."""

    def predict(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Raw logits of (query, passage) pairs, at least one, in one go: without engine or deadline."""

    def close(self) -> None:
        """Release what is held: connections, device memory."""
