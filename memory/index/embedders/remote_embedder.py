"""An embedding model behind HTTP. The path says which of two dialects the server speaks:

POST …/embed           text-embeddings-inference
    → {"inputs": ["…", …], "normalize": true, "truncate": true}
    ← [[0.1, …], …]
POST …/v1/embeddings   OpenAI, and the many that are compatible with it
    → {"model": "…", "input": ["…", …], "encoding_format": "float"}
    ← {"data": [{"index": 0, "embedding": [0.1, …]}, …]}
"""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import numpy as np

from inference.engine.backend import EngineLimits
from inference.engine.jobs import Encoded
from inference.remote import ModelServer
from memory.index.embedders import Kind, clean, estimated_tokens, unit_rows

ITEMS = 32  # texts in a request, unless MEMORY_EMBEDDING_BATCH says otherwise: text-embeddings-inference's own limit
TOKENS = 65_536  # in one request
ATTEMPTS = 3
ASSUMED_LENGTH = 512  # tokens of a long text, for the estimates: the server cuts where its model stops reading
TEI_PATH, OPENAI_PATH = "/embed", "/embeddings"


class RemoteEmbedder:
    """`connections` calls at once, of which one is left to questions. Vectors are scaled here, whatever a server does.

    `dimension`: what is stored. `truncate`: whether longer vectors are cut to it; without, they are an error.
    """

    name = "remote"
    device = "remote"
    mixes_requests = True
    keeps_deadlines = False
    reads: int | None = None

    def __init__(
        self,
        url: str,
        *,
        model: str,
        dimension: int,
        truncate: bool = False,
        token: str = "",
        connections: int = 4,
        batch: int = 0,
        prompts: Mapping[Kind, str] | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.workers = connections
        self.row: tuple[int, ...] = (dimension,)
        self.limits = EngineLimits(items=batch or ITEMS, tokens=TOKENS, slice_tokens=TOKENS)
        self._model = model
        self._truncate = truncate
        self._speaks_openai = url.rstrip("/").endswith(OPENAI_PATH)
        self._prompts = dict.fromkeys(Kind, "") | dict(prompts or {})
        self._server = ModelServer(url, token=token, connections=connections, attempts=ATTEMPTS, transport=transport)

    def encode(self, texts: Sequence[str], kind: Kind) -> list[Encoded]:
        """The server tokenises; the lengths are guesses."""
        prompt = self._prompts[kind]
        return [Encoded(estimated_tokens(text, ASSUMED_LENGTH), prompt + clean(text)) for text in texts]

    def forward(self, items: Sequence[Encoded], timeout: float) -> np.ndarray:
        texts = [item.payload for item in items]
        if self._speaks_openai:
            body = {"model": self._model, "input": texts, "encoding_format": "float"}
            rows = _in_order(self._server.post(body, timeout), len(texts))
        else:
            rows = self._server.post({"inputs": texts, "normalize": True, "truncate": True}, timeout)
        vectors = np.array(rows, dtype=np.float32)  # ValueError or TypeError for what is no table of numbers
        if vectors.ndim != 2 or (vectors.shape[1] != self.row[0] and not self._truncate):
            return vectors  # of a shape that the engine refuses
        return unit_rows(vectors, *self.row)

    def close(self) -> None:
        self._server.close()


def _in_order(answer: Any, count: int) -> list[Any]:
    """The embeddings by `index`. Raises ValueError unless every text has exactly one."""
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise ValueError("the remote model's answer holds no data")
    found = {row["index"]: row["embedding"] for row in answer["data"]}
    if len(answer["data"]) != count or set(found) != set(range(count)):
        raise ValueError(f"the remote model embedded {len(answer['data'])} of {count} texts")
    return [found[index] for index in range(count)]
