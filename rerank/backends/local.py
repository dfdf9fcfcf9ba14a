"""What the torch and ONNX backends share: the tokenizer, and predicting without an engine."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from rerank.backends import EncodedPair
from rerank.backends.pairs import Limits, PairTokenizer
from rerank.engine.texts import clean
from rerank.outcomes import ModelUnavailable
from rerank.weights.files import ModelFiles

PREDICT_BATCH = 32


class LocalBackend(ABC):
    """A model in this process. One owner thread: neither tokenizer nor device like company."""

    name: str
    device: str
    dtype: str
    workers = 1
    mixes_requests = True

    def __init__(self, files: ModelFiles, limits: Limits) -> None:
        self._limits = limits
        self._pad_id = int(files.config.get("pad_token_id") or 0)
        try:
            self._tokenizer = PairTokenizer.from_directory(files.directory, limits)
        except (OSError, ValueError) as error:
            raise ModelUnavailable(f"{files.directory}: {error}") from error

    def encode(self, query: str, passages: Sequence[str]) -> list[EncodedPair]:
        return self._tokenizer.encode(query, passages)

    @abstractmethod
    def forward(self, pairs: Sequence[EncodedPair], timeout: float) -> np.ndarray:
        """Raw logits, float32 (len(pairs),)."""

    def predict(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        scores = np.full(len(pairs), -np.inf, dtype=np.float32)
        encoded = [
            EncodedPair(index, pair.tokens, pair.payload)
            for index, (query, passage) in enumerate(pairs)
            for pair in self.encode(
                clean(query, self._limits.query), [clean(passage, self._limits.pair * self._limits.windows)]
            )
        ]
        for start in range(0, len(encoded), PREDICT_BATCH):
            batch = encoded[start : start + PREDICT_BATCH]
            for pair, score in zip(batch, self.forward(batch, timeout=float("inf")), strict=True):
                scores[pair.candidate] = max(scores[pair.candidate], score)
        return scores

    def close(self) -> None:
        return None
