"""What turns texts into vectors, and the protocol between it and the engine.

    model_folder     what a sentence-transformers folder says of its model
    onnx_embedder    BERT on ONNX Runtime, on the CPU
    torch_embedder   any sentence-transformers model, on the CPU or a GPU
    remote_embedder  a server: text-embeddings-inference's `/embed`, or OpenAI's `/v1/embeddings`

All put the model's prompts in front of a text, cut it where the model stops reading, and scale to unit length.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import numpy as np

from inference.engine import backend
from inference.engine.backend import EngineLimits
from inference.engine.jobs import Encoded


class Kind(StrEnum):
    """What a text is to the model. Some models want another prompt in front of each."""

    QUESTION = "question"
    PASSAGE = "passage"


PROMPT_NAMES = {Kind.QUESTION: ("query",), Kind.PASSAGE: ("document", "passage", "corpus")}


class Embedder(backend.Backend, Protocol):
    """A loaded model; `row` is (dimension,). `encode` may be called by any thread, `forward` by the engine alone.

    `keeps_deadlines`: whether a forward ends at its `timeout`, so that a caller's thread may be lent to it.
    `reads`: the tokens of a text that the model looks at, special ones included; None where only the server knows.
    """

    name: str
    device: str
    limits: EngineLimits
    keeps_deadlines: bool
    reads: int | None

    def encode(self, texts: Sequence[str], kind: Kind) -> list[Encoded]:
        """Texts ready for the model."""

    def forward(self, items: Sequence[Encoded], timeout: float) -> np.ndarray:
        """Embeddings of unit length of items of one kind, float32 (len(items), dimension)."""


def prompt_of(prompts: Mapping[str, str], kind: Kind) -> str:
    """What a model's own configuration puts in front of a text."""
    return next((prompt for name in PROMPT_NAMES[kind] if (prompt := prompts.get(name))), "")


def clean(text: str) -> str:
    """`text` with lone surrogates replaced, which no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def estimated_tokens(text: str, longest: int) -> int:
    """A guess, for models that tokenise for themselves."""
    return min(len(text) // 4 + 1, longest)


def unit_rows(vectors: np.ndarray, dimension: int) -> np.ndarray:
    """The first `dimension` numbers of each row, scaled to unit length; a row of zeros becomes NaN."""
    cut = vectors[:, :dimension]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(cut / np.linalg.norm(cut, axis=1, keepdims=True), dtype=np.float32)
