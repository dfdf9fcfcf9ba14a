"""The protocol between the engine and whatever computes scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A query and (a window of) a passage, ready for the model.

    `candidate` is the passage's position in its request; several windows of one passage share it.
    """

    candidate: int
    tokens: int
    payload: Any


class Backend(Protocol):
    """Scores pairs with raw logits. Used by `workers` threads of the engine, and by nobody else."""

    name: str
    device: str
    dtype: str
    workers: int
    mixes_requests: bool

    def encode(self, query: str, passages: Sequence[str]) -> list[EncodedPair]:
        """Tokenise one request's pairs, at least one for each passage. Texts are clean and cut, see `texts.py`."""

    def forward(self, pairs: Sequence[EncodedPair], timeout: float) -> np.ndarray:
        """Raw logits, float32 of shape (len(pairs),). `timeout` in seconds is for backends that can keep one."""

    def predict(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Raw logits of (query, passage) pairs, as `CrossEncoder.predict` gives them, without engine or deadline."""

    def close(self) -> None:
        """Release what is held: connections, device memory."""
