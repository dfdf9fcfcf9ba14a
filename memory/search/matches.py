"""What a query finds, still sealed, and what it answers with: a chunk, opened, and how it came to be among the best."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from memory.index.rows import PlainChunk


class Candidate(NamedTuple):
    """A row as the database found it, still sealed; without its seals where an answer has no room for them."""

    id: UUID
    doc_id: str
    source: str
    chunk_index: int
    enc_key_id: str
    text_cipher: bytes | None
    meta_cipher: bytes | None
    context_cipher: bytes | None
    size: int  # of its seals, in bytes
    chunk_mac: bytes | None
    created_at: datetime
    updated_at: datetime
    occurred_at: datetime | None
    expires_at: datetime | None
    score: float
    dense: float
    lexical: float
    neighbours: float
    time: float = 0.0  # what was added because it happened when the question says

    def __repr__(self) -> str:
        return f"<Candidate {self.id}>"


@dataclass(frozen=True)
class Explanation:
    """The parts of a score before they are weighed: the cosine (−1 to 1), BM25 as a share of the best row's (0 to 1),
    and the mean of what the chunks before and after score without their own neighbours (0 where there are none).
    `time`: what was added because it happened when the question says (MEMORY_TIME_WEIGHT)."""

    dense: float
    lexical: float
    neighbours: float
    time: float = 0.0


@dataclass(frozen=True)
class Surroundings:
    """The chunks before and after a match in its document, in the document's order."""

    before: list[PlainChunk]
    after: list[PlainChunk]


@dataclass(frozen=True)
class Match:
    """One answer: a chunk, opened, and its scores, higher being better: `retrieval_score` as
    memory.search.search_parameters.Weights says, `score` the cross-encoder's raw one, None where it gave none."""

    id: UUID
    doc_id: str
    source: str
    chunk_index: int
    text: str = field(repr=False)
    metadata: Any = field(repr=False)
    retrieval_score: float
    created_at: datetime
    title: str = field(default="", repr=False)
    author: str = field(default="", repr=False)
    occurred_at: datetime | None = None
    expires_at: datetime | None = None
    score: float | None = None
    explanation: Explanation | None = None
    context: Surroundings | None = None
