"""What the torch and ONNX backends share: the tokenizer, and predicting without an engine."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inference.engine.jobs import Encoded
from rerank.backends import ServedModel
from rerank.backends.pair_tokenizer import Limits, PairTokenizer
from rerank.backends.text_cleaning import clean
from rerank.outcomes import ModelUnavailable
from rerank.weights.files import ModelFiles


class LocalBackend(ABC):
    """A model in this process. One owner thread: neither tokenizer nor device like company."""

    name: str
    device: str
    dtype: str
    workers = 1
    mixes_requests = True
    row: tuple[int, ...] = ()

    def __init__(self, files: ModelFiles, limits: Limits) -> None:
        self.model = ServedModel(files.name, files.revision, files.fusion)
        self._limits = limits = _within(limits, files.config if files.graph else {})
        self.gives_logits = gives_logits(files.config)
        self._pad_id = int(files.config.get("pad_token_id") or 0)
        try:
            self._tokenizer = PairTokenizer.from_directory(
                files.directory, limits, marks_shared=bool(files.config.get("shared_token_types"))
            )
        except (OSError, ValueError) as error:
            raise ModelUnavailable(f"{files.directory}: {error}") from error

    def encode(self, query: str, passages: Sequence[str]) -> list[Encoded]:
        return self._tokenizer.encode(query, passages)

    @abstractmethod
    def forward(self, pairs: Sequence[Encoded], timeout: float) -> np.ndarray:
        """Raw logits, float32 (len(pairs),)."""

    def predict(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        limits = self._limits
        encoded = [
            pair
            for query, passage in pairs
            for pair in self.encode(clean(query, limits.query), [clean(passage, limits.pair)])
        ]
        return self.forward(encoded, timeout=float("inf"))

    def close(self) -> None:
        return None


def _within(limits: Limits, config: Mapping[str, Any]) -> Limits:
    """The limits of the settings, or those of an exported model where it reads less."""
    pair = min(limits.pair, int(config.get("max_length", limits.pair)))
    return Limits(pair=pair, query=min(limits.query, pair // 2, int(config.get("query_tokens", limits.query))))


def gives_logits(config: dict[str, Any]) -> bool:
    """Whether the model's own activation, under its newer or its older name in config.json, is none; else a sigmoid."""
    named = (config.get("sentence_transformers") or {}).get("activation_fn")
    return str(named or config.get("sbert_ce_default_activation_function")).endswith("Identity")
