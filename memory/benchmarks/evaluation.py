"""Measures the quality of answers on a judged collection, through the code that answers the query endpoint."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from django.conf import settings

from memory.benchmarks.beir import Collection, Query
from memory.benchmarks.command import progress
from memory.benchmarks.embedding_cache import embeddings
from memory.benchmarks.ranking import ndcg, recall, reciprocal_rank
from memory.benchmarks.report import Report, Row, Target, at_least, more_than
from memory.benchmarks.tenants import benchmark_user, throwaway_tenants
from memory.benchmarks.timing import latencies
from memory.documents.document import Document
from memory.index.embedding import embed_query
from memory.indexing import index_documents
from memory.search.retrieval import CANDIDATES, query_memories
from memory.search.search_parameters import Weights
from rerank import get_cross_encoder
from rerank.outcomes import ModelUnavailable

RERANKED = "rerank"
MODES = ("dense", "lexical", "hybrid", RERANKED)
RECALL_DEPTHS = (5, 10, CANDIDATES)
BATCH = 250
TIMED_EMBEDDINGS = 50
# What the retrieval of this product has to reach: nDCG@10 of hybrid.
HYBRID_NDCG = {"scifact": 0.73}
COUNTING = (
    f"Counted over documents, each at the place of its best chunk among the {CANDIDATES} candidates that the query"
    " endpoint finds; nDCG with linear gain, MRR over the same candidates."
)
LATENCY = (
    "dense = cosine alone, lexical = keywords alone, hybrid = as the installation weighs them, rerank = hybrid, put in"
    " order by the cross-encoder. p50 and p95 are of one question, its embedding given, until its matches are opened."
)


@dataclass(frozen=True)
class Options:
    """How to evaluate. `separator` ends the prefix of an id that names its tenant; None: everything is one tenant's."""

    modes: Sequence[str] = MODES
    separator: str | None = None
    cache: Path | None = None
    keep: bool = False
    verbosity: int = 1


@dataclass
class Asked:
    """The outcome of one mode: a ranking and a time in ms per query, and how often reranking was skipped, by reason."""

    rankings: list[list[str]]
    milliseconds: list[float]
    skipped: Counter[str]


@dataclass(frozen=True)
class Users:
    """User ids by document id and by query id, kept apart because a document and a query may have the same id."""

    of_document: dict[str, str]
    of_query: dict[str, str]


def evaluate(collection: Collection, options: Options) -> Report:
    """Store the collection for throw-away users, ask its questions in every mode, and erase it again."""
    users = tenants(collection, options.separator)
    questions = embeddings(
        [query.text for query in collection.queries], "queries", cache=options.cache, verbosity=options.verbosity
    )
    report = Report(f"evaluate {collection.name}", notes=[COUNTING, LATENCY])
    with throwaway_tenants(sorted({*users.of_document.values(), *users.of_query.values()}), keep=options.keep):
        rate = store(collection, users, options)
        for mode in options.modes:
            _evaluate_mode(report, mode, collection, users, questions, options.verbosity)
    report.targets = targets(collection.name, report.results)
    report.notes += [_size(collection, users, rate), _embedding_time(collection.queries)]
    return report


def tenants(collection: Collection, separator: str | None) -> Users:
    """The user of each document and query. A query without a known prefix goes to the user of its best document."""

    def user(prefix: str) -> str:
        return benchmark_user("-".join(["evaluate", collection.name, *([prefix] if separator else [])]))

    def prefix(name: str) -> str:
        return name.split(separator, 1)[0] if separator else ""

    known = {prefix(document.doc_id) for document in collection.documents}
    return Users(
        of_document={document.doc_id: user(prefix(document.doc_id)) for document in collection.documents},
        of_query={
            query.query_id: user(
                own
                if (own := prefix(query.query_id)) in known
                else prefix(max(query.judged, key=query.judged.__getitem__))
            )
            for query in collection.queries
        },
    )


def store(collection: Collection, users: Users, options: Options) -> float:
    """Index every document with its embeddings; returns chunks per second, embedding not included."""
    texts = [chunk.text for document in collection.documents for chunk in document.chunks]
    vectors = iter(embeddings(texts, "passages", cache=options.cache, verbosity=options.verbosity))
    by_user: dict[str, list[Document]] = {}
    for document in collection.documents:
        chunks = tuple(replace(chunk, embedding=next(vectors)) for chunk in document.chunks)
        by_user.setdefault(users.of_document[document.doc_id], []).append(replace(document, chunks=chunks))
    batches = [
        (user_id, documents[first : first + BATCH])
        for user_id, documents in by_user.items()
        for first in range(0, len(documents), BATCH)
    ]
    started = perf_counter()
    for user_id, documents in progress(batches, "Storing", verbosity=options.verbosity, unit="batch"):
        index_documents(user_id=user_id, documents=documents)
    return len(texts) / (perf_counter() - started)


def weights_of(mode: str) -> Weights:
    """The weights of a mode: cosine alone, keywords alone, or those of the settings."""
    if mode == "dense":
        return Weights(dense=1.0, lexical=0.0, neighbour=0.0)
    if mode == "lexical":
        return Weights(dense=0.0, lexical=1.0, neighbour=0.0)
    return Weights.configured()


def ask(
    queries: Sequence[Query],
    users: Mapping[str, str],
    questions: np.ndarray,
    *,
    mode: str,
    verbosity: int = 1,
) -> Asked:
    """Ask every question of its user; `questions` are the embeddings, float32 (n, d)."""
    asked = Asked([], [], Counter())
    pairs = zip(queries, questions, strict=True)
    weights = weights_of(mode)
    for query, vector in progress(pairs, f"Asking, {mode}", verbosity=verbosity, unit="query", total=len(queries)):
        started = perf_counter()
        result = query_memories(
            user_id=users[query.query_id],
            query=query.text,
            top_k=CANDIDATES,
            embedding=vector,
            weights=weights,
            rerank=mode == RERANKED,
        )
        asked.milliseconds.append((perf_counter() - started) * 1000)
        asked.rankings.append(list(dict.fromkeys(match.doc_id for match in result.matches)))
        if mode == RERANKED and result.skip_reason:
            asked.skipped[result.skip_reason.value] += 1
    return asked


def quality(mode: str, queries: Sequence[Query], asked: Asked) -> Row:
    """One row of means over the queries, and latencies in ms."""
    pairs = [(ranked, query.judged) for ranked, query in zip(asked.rankings, queries, strict=True)]
    return {
        "mode": mode,
        "queries": len(queries),
        "ndcg@10": _mean(ndcg(*pair) for pair in pairs),
        **{f"recall@{depth}": _mean(recall(*pair, depth) for pair in pairs) for depth in RECALL_DEPTHS},
        "mrr": _mean(reciprocal_rank(*pair) for pair in pairs),
        **{f"{name}_ms": value for name, value in latencies(asked.milliseconds, 50, 95).items()},
    }


def targets(name: str, rows: Sequence[Row]) -> list[Target]:
    """Hybrid above embedding alone, and the collection's own bound where it has one."""
    scores = {row["mode"]: row["ndcg@10"] for row in rows}
    found = []
    if "hybrid" in scores and name in HYBRID_NDCG:
        found.append(at_least(f"{name}: nDCG@10 of hybrid", scores["hybrid"], HYBRID_NDCG[name]))
    if "hybrid" in scores and "dense" in scores:
        found.append(more_than(f"{name}: nDCG@10 of hybrid above dense", scores["hybrid"], scores["dense"]))
    return found


def _evaluate_mode(
    report: Report,
    mode: str,
    collection: Collection,
    users: Users,
    questions: np.ndarray,
    verbosity: int,
) -> None:
    if mode == RERANKED:
        try:
            get_cross_encoder()
        except ModelUnavailable as reason:
            report.notes.append(f"{mode} was not measured: {reason}")
            return
    asked = ask(collection.queries, users.of_query, questions, mode=mode, verbosity=verbosity)
    report.results.append(quality(mode, collection.queries, asked))
    for skip_reason, count in asked.skipped.items():
        report.notes.append(f"{mode}: {count} of {len(questions)} questions kept the retrieval order ({skip_reason}).")


def _size(collection: Collection, users: Users, rate: float) -> str:
    chunks = sum(len(document.chunks) for document in collection.documents)
    count = len(set(users.of_document.values()))
    return (
        f"{len(collection.documents):,} documents in {chunks:,} chunks for {count:,} users,"
        f" stored at {rate:,.0f} chunks/s with their embeddings given."
    )


def _embedding_time(queries: Sequence[Query]) -> str:
    times = []
    for query in queries[:TIMED_EMBEDDINGS]:
        started = perf_counter()
        embed_query(query.text)
        times.append((perf_counter() - started) * 1000)
    shown: dict[str, Any] = latencies(times, 50, 95)
    return (
        f"Embedding a question with {settings.MEMORY_EMBEDDING_MODEL}: p50 {shown['p50']:.1f} ms,"
        f" p95 {shown['p95']:.1f} ms, not in the latencies above."
    )


def _mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values)))
