"""A reranker behind HTTP, as text-embeddings-inference serves it: `POST {url}/rerank`.

    → {"query": "…", "texts": ["…", …], "raw_scores": true, "truncate": true}
    ← [{"index": 1, "score": 4.2}, {"index": 0, "score": -3.1}]

At most 32 texts a request (its default `--max-client-batch-size`). Connections are kept alive; calls have deadlines.
"""

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import httpx2
import numpy as np

from inference.engine.jobs import Encoded
from inference.remote import ModelServer
from rerank.backends import ServedModel
from rerank.backends.pair_tokenizer import Limits
from rerank.backends.text_cleaning import clean, estimate_tokens

TEXTS_A_REQUEST = 32
PREDICT_TIMEOUT = 10.0


class RemoteBackend:
    """Thread-safe: `connections` engine threads share one pool."""

    name = "remote"
    device = "remote"
    dtype = "unknown"
    mixes_requests = False
    row: tuple[int, ...] = ()
    gives_logits = True

    def __init__(
        self,
        url: str,
        *,
        limits: Limits,
        model: str = "remote",
        token: str = "",
        connections: int = 4,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.model = ServedModel(model)
        self.workers = connections
        self._limits = limits
        self._server = ModelServer(
            url.rstrip("/") + "/rerank", token=token, connections=connections, transport=transport
        )

    def encode(self, query: str, passages: Sequence[str]) -> list[Encoded]:
        """The server tokenises; lengths are estimates, good enough to keep long texts together."""
        return [
            Encoded(estimate_tokens(len(query) + len(passage), self._limits.pair), (query, passage))
            for passage in passages
        ]

    def forward(self, pairs: Sequence[Encoded], timeout: float) -> np.ndarray:
        return self._score([pair.payload for pair in pairs], timeout)

    def predict(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        limits = self._limits
        cleaned = [(clean(query, limits.query), clean(passage, limits.pair)) for query, passage in pairs]
        return self._score(cleaned, PREDICT_TIMEOUT)

    def close(self) -> None:
        self._server.close()

    def _score(self, pairs: Sequence[tuple[str, str]], timeout: float) -> np.ndarray:
        deadline = time.monotonic() + timeout
        scores: list[float] = []
        for query, group in groupby(pairs, key=lambda pair: pair[0]):
            texts = [passage for _, passage in group]
            for start in range(0, len(texts), TEXTS_A_REQUEST):
                chunk = texts[start : start + TEXTS_A_REQUEST]
                scores += self._request(query, chunk, deadline - time.monotonic())
        return np.array(scores, dtype=np.float32)

    def _request(self, query: str, texts: list[str], timeout: float) -> list[float]:
        body = {"query": query, "texts": texts, "raw_scores": True, "truncate": True}
        return _scores_in_order(self._server.post(body, timeout), len(texts))


def _scores_in_order(ranks: Any, count: int) -> list[float]:
    """The answer's scores by text index; raises ValueError unless every text has exactly one."""
    scores = {int(rank["index"]): float(rank["score"]) for rank in ranks}
    if len(ranks) != count or set(scores) != set(range(count)):
        raise ValueError(f"the remote reranker scored {len(ranks)} of {count} texts")
    return [scores[index] for index in range(count)]
