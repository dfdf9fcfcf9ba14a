"""Answers a query: embed it, find candidates, open their seals, rerank, return the best. One function per step."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
from django.conf import settings

from memory import metrics
from memory.exceptions import EmbeddingModelUnavailable, IntegrityFailure, NoEmbedding
from memory.index.context import NO_CONTEXT, local_time
from memory.index.embedding import embed_query
from memory.index.names import names_of
from memory.index.recipe import Recipe
from memory.index.vectors import as_embedding
from memory.rls import tenant_transaction
from memory.sealing.codecs import ContextCodec, JSONCodec, TextCodec
from memory.sealing.opening import SealedRow, open_seals, opens_counted_together
from memory.sealing.row_macs import refuse_altered
from memory.search.answer_bytes import within_budget
from memory.search.candidates import best_candidates
from memory.search.exact_scan import PINS
from memory.search.filters import EVERYTHING, Scope
from memory.search.matches import Candidate, Explanation, Match
from memory.search.reranking import reorder
from memory.search.search_parameters import SearchParameters, Weights, search_parameters
from memory.search.surroundings import Surrounded, with_surroundings
from memory.search.time_questions import lifted, span_of
from memory.tenancy.cursors import sending
from rerank import Reranker, SkipReason, pool_size

logger = logging.getLogger(__name__)

CANDIDATES = 24
LIFTED_FROM = 4  # times as many candidates, where the time that a question names may lift some
_text, _json, _context = TextCodec(), JSONCodec(), ContextCodec()


@dataclass(frozen=True)
class QueryResult:
    """The best matches first, how many rows had to be left out, milliseconds per step, whether a cross-encoder had a
    say in the order, which one and how, and if not, why (None where nothing was found to be ordered). `truncated`:
    there are fewer matches, or chunks around them, than were asked for, because more would have passed
    MEMORY_MAX_ANSWER_BYTES. `degraded`: why there was no embedding of the query, so that keywords alone have found
    these; None where there was one."""

    matches: list[Match]
    integrity_failures: int
    timings_ms: dict[str, float]
    reranked: bool = False
    skip_reason: SkipReason | None = None
    reranker: Reranker | None = None
    truncated: bool = False
    degraded: NoEmbedding | None = None


def query_memories(
    *,
    user_id: str,
    query: str,
    top_k: int,
    scope: Scope = EVERYTHING,
    embedding: Sequence[float] | np.ndarray | None = None,
    weights: Weights | None = None,
    explain: bool = False,
    rerank: bool = True,
    context: int = 0,
    asked_at: datetime | None = None,
) -> QueryResult:
    """The `top_k` best chunks for a query, of this user alone.

    `scope`: which of the user's rows are searched. `embedding` (MEMORY_EMBEDDING_DIM floats) stands in for the model's.
    `asked_at` (aware, now by default) is when the question is asked: "last week" is the week before that one.
    `explain` adds the parts of each retrieval score. `rerank` lets the cross-encoder reorder the candidates; its
    failure is never one of the answer. `context` adds so many chunks before and after each match. Without an embedding
    in time, keywords alone find the candidates, and the answer says so. A row whose seal does not
    open, or that is not as it was written, is logged by id, counted and left out. Raises InvalidDocument (InvalidFilter
    for a filter) naming the field, InvalidUserId; EmbeddingModelUnavailable only where there are no keywords.
    """
    timings: dict[str, float] = {}
    pool = pool_size(top_k) if rerank else 0
    with metrics.stage("query", "embed", timings):
        vector, degraded = _embedded(query) if embedding is None else (as_embedding(embedding), None)
    with metrics.stage("query", "candidates", timings):
        span = span_of(query, asked_at or datetime.now(UTC)) if settings.MEMORY_TIME_WEIGHT else None
        limit = max(CANDIDATES, top_k, pool)
        user_hash, candidates = find_candidates(
            user_id=user_id,
            vector=vector,
            limit=limit if span is None else LIFTED_FROM * limit,
            query=query,
            scope=scope,
            weights=_keywords_alone(weights) if degraded else weights,
            model=settings.MEMORY_EMBEDDING_MODEL if embedding is None else None,
        )
    if span is not None:
        candidates = lifted(candidates, span, settings.MEMORY_TIME_WEIGHT)[:limit]
    if degraded:
        # Without a vector, a row that holds none of the words says nothing about the question.
        candidates = [candidate for candidate in candidates if candidate.score > 0]
    with metrics.stage("query", "open", timings):
        sealed = [candidate for candidate in candidates if candidate.text_cipher is not None]
        # Of those that nobody reorders, no more than are asked for.
        opened, unreadable = open_candidates(user_hash, sealed, most=None if rerank else top_k, explain=explain)
    with metrics.stage("query", "rerank", timings):
        matches, reranking = reorder(query, opened, pool=pool, wanted=rerank)
    best = Surrounded(matches[:top_k])
    if context and best.matches:
        with metrics.stage("query", "context", timings):
            sizes = {candidate.id: candidate.size for candidate in candidates}
            used = sum(sizes[match.id] for match in best.matches)
            best = with_surroundings(user_id, best.matches, most=context, used=used)
    return QueryResult(
        matches=best.matches,
        integrity_failures=len(unreadable | best.unreadable),
        timings_ms=timings,
        reranked=reranking.reranked,
        skip_reason=reranking.skip_reason,
        reranker=reranking.reranker,
        truncated=best.truncated or len(sealed) < min(top_k, len(candidates)),
        degraded=degraded,
    )


def _embedded(query: str) -> tuple[np.ndarray, NoEmbedding | None]:
    """The query's vector; or any vector, and why it is not the query's.

    Raises EmbeddingModelUnavailable where there are no keywords that could answer instead.
    """
    try:
        return embed_query(query), None
    except EmbeddingModelUnavailable as error:
        if not settings.MEMORY_LEXICAL_INDEX:
            raise
        metrics.DEGRADED.labels(error.reason.value).inc()
        logger.warning("answered by keywords alone", extra={"reason": error.reason.value})
        return np.eye(1, settings.MEMORY_EMBEDDING_DIM, dtype=np.float32)[0], error.reason


def _keywords_alone(weights: Weights | None) -> Weights:
    return replace(weights or Weights.configured(), dense=0.0)


def find_candidates(
    *,
    user_id: str,
    vector: np.ndarray,
    limit: int,
    query: str = "",
    scope: Scope = EVERYTHING,
    weights: Weights | None = None,
    model: str | None = None,
) -> tuple[str, list[Candidate]]:
    """The user's hash and the `limit` best rows, best first, in one short transaction.

    `vector`: the query's embedding as the model or the client gave it, float32 (d,). `query`: its text, for the
    keywords; without one the vectors decide alone. `model`: which one made the vector, None for the client's own; a
    tenant whose rows wait for a reindex under a new model is answered by keywords meanwhile. Raises InvalidFilter.
    """
    weights = weights or Weights.configured()

    def parameters_for(recipe: Recipe) -> SearchParameters:
        return search_parameters(
            user_hash,
            recipe=recipe,
            vector=vector,
            query=query,
            limit=limit,
            weights=weights if recipe.compares_vectors_of(model) else replace(weights, dense=0.0),
            scope=scope,
        )

    with tenant_transaction(user_id, planner=PINS) as user_hash, sending() as send:
        candidates = [Candidate(*row) for row in best_candidates(send, user_hash, parameters_for)]
        return user_hash, within_budget(send, user_hash, candidates)


def open_candidates(
    user_hash: str, candidates: Sequence[Candidate], *, most: int | None = None, explain: bool = False
) -> tuple[list[Match], set[UUID]]:
    """Open candidates in order until there are `most`; returns them, and the ids of those that did not open.

    What does not open is logged by id and left out: never an unsealed guess.
    """
    matches: list[Match] = []
    unreadable: set[UUID] = set()
    with opens_counted_together() as count:
        for candidate in candidates:
            if len(matches) == most:
                break
            try:
                matches.append(_open(user_hash, candidate, explain, count))
            except IntegrityFailure as failure:
                unreadable.add(candidate.id)
                reason = type(failure).__name__
                logger.error("integrity failure", extra={"chunk_id": str(candidate.id), "reason": reason})
    return matches, unreadable


def _open(user_hash: str, candidate: Candidate, explain: bool, count: Callable[[int], object]) -> Match:
    row = SealedRow(user_hash, "memorychunk", (user_hash, candidate.id), candidate.enc_key_id)
    seals = (
        (candidate.text_cipher, _text.decode),
        (candidate.meta_cipher, _json.decode),
        (candidate.context_cipher, _context.decode),
    )
    text, metadata, context = open_seals(row, *seals, count=count).values
    refuse_altered(user_hash, candidate, candidate.chunk_mac, key_id=candidate.enc_key_id)
    context = context or NO_CONTEXT
    doc_id, source = names_of(candidate.doc_id, candidate.source, context)
    return Match(
        id=candidate.id,
        doc_id=doc_id,
        source=source,
        chunk_index=candidate.chunk_index,
        text=text,
        metadata=metadata,
        title=context.title,
        author=context.author,
        occurred_at=local_time(candidate.occurred_at, context),
        expires_at=candidate.expires_at,
        retrieval_score=float(candidate.score),
        created_at=candidate.created_at,
        explanation=Explanation(*candidate[-4:]) if explain else None,
    )
