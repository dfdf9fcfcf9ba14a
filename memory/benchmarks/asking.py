"""Asks the questions of a collection in one mode, through the code that answers the query endpoint."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from time import perf_counter

import numpy as np

from memory.benchmarks.beir import Collection, Query
from memory.benchmarks.bm25_baseline import BM25Baseline
from memory.benchmarks.command import progress
from memory.documents.document import Document
from memory.search.matches import Match
from memory.search.reranking import passages_of
from memory.search.retrieval import CANDIDATES, query_memories
from memory.search.search_parameters import Weights
from rerank.ordering import Fusion

Predict = Callable[[Sequence[tuple[str, str]]], np.ndarray]


class Unit(StrEnum):
    """What is judged and ranked: documents, each at the place of its best chunk, or chunks, `doc_id/chunk_index`."""

    DOCUMENT = "document"
    CHUNK = "chunk"

    def ranking(self, matches: Sequence[Match]) -> list[str]:
        """The ids of the matches in this unit, best first, each once."""
        if self is Unit.CHUNK:
            return [f"{match.doc_id}/{match.chunk_index}" for match in matches]
        return list(dict.fromkeys(match.doc_id for match in matches))

    def texts(self, document: Document) -> dict[str, str]:
        """A document's plain texts, with its title and who wrote them, by the id they are ranked under."""
        if self is Unit.DOCUMENT:
            return {document.doc_id: "\n".join([document.title, *(chunk.text for chunk in document.chunks)])}
        return {
            f"{document.doc_id}/{place}": f"{document.title}\n{chunk.author}\n{chunk.text}"
            for place, chunk in enumerate(document.chunks)
        }


@dataclass(frozen=True)
class Users:
    """User ids by document id and by query id, kept apart because a document and a query may have the same id."""

    of_document: dict[str, str]
    of_query: dict[str, str]


@dataclass
class Run:
    """One mode's outcome: a ranking and a time in ms per query, and of how many chunks that answer it the share found
    (where chunks are retrieved)."""

    mode: str
    rankings: list[list[str]] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    chunk_shares: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Questions:
    """The questions of a collection, their embeddings (float32 (n, d)), who asks them, and in which unit they are
    judged."""

    collection: Collection
    users: Users
    embeddings: np.ndarray
    unit: Unit = Unit.DOCUMENT
    verbosity: int = 1

    def each(self, label: str) -> Iterator[tuple[Query, np.ndarray]]:
        """Every question with its embedding, behind a progress bar."""
        pairs = zip(self.collection.queries, self.embeddings, strict=True)
        yield from progress(
            pairs, f"Asking, {label}", verbosity=self.verbosity, unit="query", total=len(self.embeddings)
        )

    def matches(self, query: Query, vector: np.ndarray, weights: Weights) -> list[Match]:
        """The candidates for a question, in retrieval order."""
        return query_memories(
            user_id=self.users.of_query[query.query_id],
            query=query.text,
            top_k=CANDIDATES,
            embedding=vector,
            weights=weights,
            rerank=False,
        ).matches

    def chunks_by_document(self) -> dict[str, int]:
        """How many chunks each document has."""
        return {document.doc_id: len(document.chunks) for document in self.collection.documents}


def weights_of(mode: str) -> Weights:
    """The weights of a mode: cosine alone, keywords alone, or those of the settings."""
    if mode == "dense":
        return Weights(dense=1.0, lexical=0.0, neighbour=0.0)
    if mode == "lexical":
        return Weights(dense=0.0, lexical=1.0, neighbour=0.0)
    return Weights.configured()


def retrieve(questions: Questions, mode: str) -> Run:
    """The retrieval order of one mode."""
    run, weights, counts = Run(mode), weights_of(mode), questions.chunks_by_document()
    for query, vector in questions.each(mode):
        started = perf_counter()
        matches = questions.matches(query, vector, weights)
        run.milliseconds.append((perf_counter() - started) * 1000)
        run.rankings.append(questions.unit.ranking(matches))
        if questions.unit is Unit.DOCUMENT:
            run.chunk_shares.append(_chunk_share(query.judged, matches, counts))
    return run


def rerank_candidates(questions: Questions, predict: Predict, fusions: Mapping[str, Fusion]) -> list[Run]:
    """Each fusion's order of the same candidates, scored once, without the deadline that a server keeps."""
    runs = {label: Run(label) for label in fusions}
    for query, vector in questions.each("reranked"):
        started = perf_counter()
        matches = questions.matches(query, vector, Weights.configured())
        passages = passages_of(matches)
        scores = predict([(query.text, passage) for passage in passages]).tolist() if passages else []
        elapsed = (perf_counter() - started) * 1000
        retrieved = [match.retrieval_score for match in matches]
        for label, fusion in fusions.items():
            order = fusion.order(scores, retrieved) if fusion.suits(passages) else range(len(matches))
            runs[label].rankings.append(questions.unit.ranking([matches[index] for index in order]))
            runs[label].milliseconds.append(elapsed)
    return list(runs.values())


def oracle(questions: Questions, retrieved: Run) -> Run:
    """The best order there is of what one run retrieved: the bound of any reranker."""
    run = Run("oracle")
    for query, ranking in zip(questions.collection.queries, retrieved.rankings, strict=True):
        run.rankings.append(sorted(ranking, key=lambda found, judged=query.judged: -judged.get(found, 0)))  # type: ignore[misc]
    return run


def keyword_baseline(questions: Questions) -> Run:
    """Textbook BM25 over the plain texts of each user."""
    run, texts = Run("bm25"), dict[str, dict[str, str]]()
    for document in questions.collection.documents:
        user = questions.users.of_document[document.doc_id]
        texts.setdefault(user, {}).update(questions.unit.texts(document))
    indexes = {user: BM25Baseline(found) for user, found in texts.items()}
    for query, _ in questions.each(run.mode):
        started = perf_counter()
        index = indexes.get(questions.users.of_query[query.query_id])
        run.rankings.append(index.best(query.text, CANDIDATES) if index else [])
        run.milliseconds.append((perf_counter() - started) * 1000)
    return run


def _chunk_share(judged: Mapping[str, int], matches: Sequence[Match], counts: Mapping[str, int]) -> float:
    """The share of the relevant documents' chunks that is among the matches."""
    relevant = {doc_id for doc_id, grade in judged.items() if grade > 0}
    there = sum(counts.get(doc_id, 0) for doc_id in relevant)
    return sum(match.doc_id in relevant for match in matches) / there if there else 0.0
