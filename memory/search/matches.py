"""What a query answers with: a chunk, opened, and how it came to be among the best."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True)
class Explanation:
    """The parts of a score before they are weighed: the cosine (−1 to 1), BM25 as a share of the best row's (0 to 1),
    and the mean of what the chunks before and after score without their own neighbours (0 where there are none)."""

    dense: float
    lexical: float
    neighbours: float


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
