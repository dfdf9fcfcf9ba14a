"""What an engine runs, and how much of it at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from inference.engine.jobs import Encoded


class Backend(Protocol):
    """A model. `forward` is called by up to `workers` threads at once, and by callers that lend theirs.

    `row`: the shape of one item's result: () for a score, (384,) for an embedding.
    """

    workers: int
    mixes_requests: bool
    row: tuple[int, ...]

    def forward(self, items: Sequence[Encoded], timeout: float) -> np.ndarray:
        """Results of shape (len(items), *row). `timeout` in seconds is for models that can keep one."""

    def close(self) -> None:
        """Release what is held: connections, device memory."""


B = TypeVar("B", bound=Backend)


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """`items` and padded `tokens` a forward, `slice_tokens` of one for passages, `queue` in jobs of each priority.

    `questions` are those that run at once; 0: as many as there are owners.
    """

    items: int = 32
    tokens: int = 16384
    slice_tokens: int = 16384
    queue: int = 64
    questions: int = 0
