"""Answering a question: embed it, find candidates, open their seals, return the best. One function per step."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from cryptography.exceptions import InvalidTag

from memory import metrics
from memory.embedding import embed_query
from memory.fields import integrity_failure
from memory.rls import tenant_transaction
from memory.sealed import JSONCodec, TextCodec
from memory.security import aad_for, open_with_key
from memory.vectors import as_embedding, searchable
from memory.wire import binary_cursor

logger = logging.getLogger(__name__)

CANDIDATES = 24
_text, _json = TextCodec(), JSONCodec()


@dataclass(frozen=True)
class Match:
    """One answer: a chunk, opened, and how near it is (cosine, −1 to 1)."""

    id: UUID
    doc_id: str
    source: str
    chunk_index: int
    text: str = field(repr=False)
    metadata: Any = field(repr=False)
    retrieval_score: float
    created_at: datetime


@dataclass(frozen=True)
class QueryResult:
    """The best matches first, how many rows had to be left out, and milliseconds per step."""

    matches: list[Match]
    integrity_failures: int
    timings_ms: dict[str, float]


@dataclass(frozen=True)
class Candidate:
    """A row as the database found it, still sealed."""

    id: UUID
    doc_id: str
    source: str
    chunk_index: int
    enc_key_id: str
    text_cipher: bytes = field(repr=False)
    meta_cipher: bytes = field(repr=False)
    created_at: datetime
    score: float


def query_memories(
    *,
    user_id: str,
    query: str,
    top_k: int,
    source: str | None = None,
    doc_id: str | None = None,
    embedding: Sequence[float] | np.ndarray | None = None,
) -> QueryResult:
    """The `top_k` best chunks for a question, of this user alone.

    `embedding` (MEMORY_EMBEDDING_DIM floats) stands in for the model's. A row whose seal does not open is logged by id,
    counted and left out. Raises InvalidDocument naming the field, InvalidUserId, EmbeddingModelUnavailable.
    """
    timings: dict[str, float] = {}
    with metrics.stage("query", "embed", timings):
        vector = embed_query(query) if embedding is None else as_embedding(embedding)
    with metrics.stage("query", "candidates", timings):
        user_hash, candidates = find_candidates(
            user_id=user_id, vector=vector, limit=max(CANDIDATES, top_k), source=source, doc_id=doc_id
        )
    with metrics.stage("query", "open", timings):
        opened = list(open_candidates(user_hash, candidates))
    return QueryResult(matches=opened[:top_k], integrity_failures=len(candidates) - len(opened), timings_ms=timings)


def find_candidates(
    *, user_id: str, vector: np.ndarray, limit: int, source: str | None = None, doc_id: str | None = None
) -> tuple[str, list[Candidate]]:
    """The user's hash and the `limit` nearest rows by exact scan, nearest first, in one short transaction.

    `vector`: the question's embedding as the model or the client gave it, float32 (d,).
    """
    with tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
        sql, parameters = exact_scan(user_hash, searchable(vector, user_hash), limit, source=source, doc_id=doc_id)
        cursor.execute(sql, parameters)
        return user_hash, [Candidate(*row) for row in cursor.fetchall()]


def exact_scan(
    user_hash: str, vector: np.ndarray, limit: int, *, source: str | None = None, doc_id: str | None = None
) -> tuple[str, dict[str, Any]]:
    """The statement that compares the question with every row of one user: recall 1, and its parameters."""
    parameters: dict[str, Any] = {"user_hash": user_hash, "vector": vector, "limit": limit}
    filters = {name: value for name, value in (("source", source), ("doc_id", doc_id)) if value is not None}
    join = "JOIN memory_chunks f ON f.user_hash = v.user_hash AND f.id = v.id" if filters else ""
    where = "".join(f" AND f.{name} = %({name})s" for name in filters)
    return (
        f"""
        SELECT c.id, c.doc_id, c.source, c.chunk_index, c.enc_key_id, c.text_cipher, c.meta_cipher, c.created_at,
               best.score
        FROM (
            SELECT v.id, -(v.embedding <#> %(vector)b) AS score
            FROM memory_vectors v {join}
            WHERE v.user_hash = %(user_hash)s{where}
            ORDER BY v.embedding <#> %(vector)b, v.id
            LIMIT %(limit)s
        ) best
        JOIN memory_chunks c ON c.user_hash = %(user_hash)s AND c.id = best.id
        ORDER BY best.score DESC, best.id
        """,  # noqa: S608  (the names come from the tuple above, the values are parameters)
        parameters | filters,
    )


def open_candidates(user_hash: str, candidates: Sequence[Candidate]) -> Iterator[Match]:
    """Open what can be opened, in order. What cannot is logged by id and counted: never an unsealed guess."""
    aad = aad_for(user_hash)
    for candidate in candidates:
        try:
            yield _open(candidate, aad)
        except InvalidTag:
            failure = integrity_failure("memorychunk", (user_hash, candidate.id), candidate.enc_key_id, "")
            logger.error("integrity failure", extra={"chunk_id": str(candidate.id), "reason": type(failure).__name__})


def _open(candidate: Candidate, aad: bytes) -> Match:
    text, key = open_with_key(candidate.text_cipher, aad)
    metadata, _ = open_with_key(candidate.meta_cipher, aad)
    metrics.OPENS.inc(2)
    if key.key_id != candidate.enc_key_id:
        metrics.KEY_ID_DRIFT.inc()
    return Match(
        id=candidate.id,
        doc_id=candidate.doc_id,
        source=candidate.source,
        chunk_index=candidate.chunk_index,
        text=_text.decode(text),
        metadata=_json.decode(metadata),
        retrieval_score=float(candidate.score),
        created_at=candidate.created_at,
    )
