"""Measures the quality of answers on a judged collection, through the code that answers the query endpoint."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from django.conf import settings

from memory.benchmarks import quality
from memory.benchmarks.asking import Questions, Run, Unit, Users, keyword_baseline, oracle, rerank_candidates, retrieve
from memory.benchmarks.beir import Collection, Query
from memory.benchmarks.command import progress
from memory.benchmarks.embedding_cache import embeddings
from memory.benchmarks.report import Report
from memory.benchmarks.tenants import benchmark_user, throwaway_tenants
from memory.benchmarks.timing import latencies
from memory.documents.document import Document
from memory.exceptions import EmbeddingModelUnavailable
from memory.index import embedding_runtime
from memory.index.embedders import Kind
from memory.index.embedding import embed_query
from memory.indexing import index_documents
from memory.search.retrieval import CANDIDATES
from rerank import config, get_cross_encoder
from rerank.ordering import Fusion
from rerank.outcomes import ModelUnavailable

HYBRID, RERANKED = quality.REFERENCE, "rerank"
MODES = ("dense", "lexical", HYBRID, RERANKED)
BATCH = 250
TIMED_EMBEDDINGS = 50
COUNTED = {
    Unit.DOCUMENT: f"Counted over documents, each at the place of its best chunk among the {CANDIDATES} candidates"
    f" that the query endpoint finds. chunks@{CANDIDATES}: the share of the relevant documents' chunks among these.",
    Unit.CHUNK: f"Counted over chunks, among the {CANDIDATES} candidates that the query endpoint finds.",
}
MEASURED = (
    "nDCG with linear gain, MRR over the same candidates. recall: the share of the relevant that is found; recall_any:"
    " of the questions for which any is found; recall_all: of those for which all are."
)
MODES_EXPLAINED = (
    "bm25 = keywords over plain text, outside of the product. dense = cosine alone, lexical = the sealed keywords"
    " alone, hybrid = as the installation weighs them, oracle = the best order of hybrid's candidates, rerank = these"
    " candidates in the cross-encoder's order (replace) or in one fused of both. p50 and p95 are of one question, its"
    " embedding given, until its matches are opened, and scored where they are reranked."
)


@dataclass(frozen=True)
class Options:
    """How to evaluate. `separator` ends the prefix of an id that names its tenant; None: everything is one tenant's.
    `fusion_weights`: those that weighted fusion is measured with; none: that of RERANK_FUSION_WEIGHT."""

    modes: Sequence[str] = MODES
    unit: Unit = Unit.DOCUMENT
    fusion_weights: Sequence[float] = ()
    separator: str | None = None
    cache: Path | None = None
    keep: bool = False
    verbosity: int = 1


def evaluate(collection: Collection, options: Options) -> Report:
    """Store the collection for throw-away users, ask its questions in every mode, and erase it again."""
    users = tenants(collection, options.separator)
    asked = [query.text for query in collection.queries]
    vectors = embeddings(asked, "queries", cache=options.cache, kind=Kind.QUESTION, verbosity=options.verbosity)
    questions = Questions(collection, users, vectors, options.unit, options.verbosity)
    report = Report(f"evaluate {collection.name}, split {collection.split}")
    report.notes += [COUNTED[options.unit], MEASURED, MODES_EXPLAINED]
    with throwaway_tenants(sorted({*users.of_document.values(), *users.of_query.values()}), keep=options.keep):
        rate = store(collection, users, options)
        runs = list(_runs(questions, options, report.notes))
    report.results = [quality.quality(run, collection.queries) for run in runs]
    report.sections = {
        "by_type": quality.by_type(runs, collection.queries),
        "differences": quality.differences(runs, collection.queries),
    }
    report.targets = quality.targets(collection.name, report.results)
    report.notes += [*_left_out(collection), _size(collection, users, rate), _embedding_time(collection.queries)]
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
    texts = collection.texts()
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


def _runs(questions: Questions, options: Options, notes: list[str]) -> Iterator[Run]:
    """The baseline, then every mode that was asked for and can be measured; `notes` says which could not."""
    yield keyword_baseline(questions)
    for mode in options.modes:
        if mode == RERANKED:
            yield from _reranked(questions, options, notes)
            continue
        run = retrieve(questions, mode)
        yield run
        if mode == HYBRID:
            yield oracle(questions, run)


def _reranked(questions: Questions, options: Options, notes: list[str]) -> list[Run]:
    try:
        backend = get_cross_encoder().backend
    except ModelUnavailable as reason:
        notes.append(f"{RERANKED} was not measured: {reason}")
        return []
    served = config.fusion_of(backend.model)
    weights = options.fusion_weights or [served.weight or settings.RERANK_FUSION_WEIGHT]
    fusions = {f"{RERANKED} {name}": Fusion(name) for name in ("replace", "rrf")}
    fusions |= {
        f"{RERANKED} weighted {weight:g}": replace(served, name="weighted", weight=weight) for weight in weights
    }
    notes.append(f"{RERANKED}: {backend.model.name} by {backend.name}, served with {served}.")
    return rerank_candidates(questions, backend.predict, fusions)


def _left_out(collection: Collection) -> Iterator[str]:
    if collection.empty:
        shown = ", ".join(collection.empty[:5])
        more = ", …" if len(collection.empty) > 5 else ""
        yield f"{len(collection.empty):,} documents without any text were left out: {shown}{more}."


def _size(collection: Collection, users: Users, rate: float) -> str:
    chunks = sum(len(document.chunks) for document in collection.documents)
    count = len(set(users.of_document.values()))
    return (
        f"{len(collection.documents):,} documents in {chunks:,} chunks for {count:,} users,"
        f" stored at {rate:,.0f} chunks/s with their embeddings given."
    )


def _embedding_time(queries: Sequence[Query]) -> str:
    """One line about it. A busy machine that misses MEMORY_EMBED_TIMEOUT_MS costs no run of an hour its report."""
    times, late = [], 0
    embedding_runtime.current().load_now()  # with a full cache nobody has needed it yet
    for query in queries[:TIMED_EMBEDDINGS]:
        started = perf_counter()
        try:
            embed_query(query.text)
        except EmbeddingModelUnavailable:
            late += 1
            continue
        times.append((perf_counter() - started) * 1000)
    if not times:
        return f"Embedding a question: none of {late} was done in time."
    shown: dict[str, Any] = latencies(times, 50, 95)
    return (
        f"Embedding a question with {settings.MEMORY_EMBEDDING_MODEL}: p50 {shown['p50']:.1f} ms,"
        f" p95 {shown['p95']:.1f} ms, not in the latencies above{f'; {late} came too late' if late else ''}."
    )
