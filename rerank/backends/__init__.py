"""The protocol between the engine and whatever computes scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A query and a passage, ready for the model."""

    tokens: int
    payload: Any


class Backend(Protocol):
    """Scores pairs with raw logits. Used by `workers` threads of the engine, and by nobody else."""

    name: str
    device: str
    dtype: str
    workers: int
    mixes_requests: bool
    # Whether CrossEncoder.predict would give this model's logits as they are, rather than their sigmoid.
    gives_logits: bool

    def encode(self, query: str, passages: Sequence[str]) -> list[EncodedPair]:
        """Tokenise one request's pairs, one for each passage in order. Texts come clean and cut."""

    def forward(self, pairs: Sequence[EncodedPair], timeout: float) -> np.ndarray:
        """Raw logits, float32 of shape (len(pairs),). `timeout` in seconds is for backends that can keep one."""

    def predict(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Raw logits of (query, passage) pairs, at least one, in one go: without engine or deadline."""

    def close(self) -> None:
        """Release what is held: connections, device memory."""
