"""Candidates for a reranker to train on, mined by the product's own hybrid: cosine + 0.5 · BM25 / best BM25.

The embeddings are the product's model's, the keywords its text analysis' and the ranking the reference that the
searches in SQL are tested against; only the database is left out.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from memory.benchmarks.brute_force import BruteForce
from memory.benchmarks.embedding_cache import embeddings
from memory.index.embedders import Kind
from memory.search.search_parameters import Weights
from memory.training.views import View
from rerank.training.pools import POOL, Pools

QUERIES_A_BLOCK = 256


def mine(view: View, *, cache: Path | None, limit: int | None = None, seed: int = 0, verbosity: int = 1) -> Pools:
    """The best POOL texts of a view for `limit` of its questions, drawn by `seed`, or for all of them."""
    asked = _drawn(len(view.questions), limit, seed)
    questions = [view.questions[each] for each in asked]
    documents = np.array(view.documents)
    vectors = embeddings(view.texts, f"{view.kind}-texts", cache=cache, verbosity=verbosity)
    query_vectors = embeddings(
        questions, f"{view.kind}-questions", cache=cache, kind=Kind.QUESTION, verbosity=verbosity
    )
    index = BruteForce(vectors, view.texts, documents)
    rows = [
        _pool(index, view.questions[each], cosine, np.isin(documents, view.answers[each]))
        for each, cosine in zip(asked, _cosines(query_vectors, vectors), strict=True)
    ]
    return Pools(
        texts=view.texts,
        questions=questions,
        kinds=[view.kind] * len(questions),
        documents=documents,
        candidates=np.array([row[0] for row in rows], dtype=np.int32).reshape(-1, POOL),
        **{
            name: np.array([row[place] for row in rows], dtype=np.float32).reshape(-1, POOL)
            for place, name in enumerate(("hybrid", "cosine", "keywords"), start=1)
        },
        relevant=np.array([row[4] for row in rows], dtype=bool).reshape(-1, POOL),
        answers=np.array([len(view.answers[each]) for each in asked], dtype=np.int32),
        found=np.array([row[5] for row in rows], dtype=bool),
    )


Row = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]


def _cosines(queries: np.ndarray, vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Each query's cosine with every vector; in blocks, because one product of many is far quicker than many."""
    for start in range(0, len(queries), QUERIES_A_BLOCK):
        yield from queries[start : start + QUERIES_A_BLOCK] @ vectors.T


def _pool(index: BruteForce, question: str, cosine: np.ndarray, answers: np.ndarray) -> Row:
    """The columns of one question. Where no answer is among the best, the best answer takes the last place."""
    scored = index.parts_of(question, cosine, Weights.configured())
    order = np.argsort(-scored.final, kind="stable")[:POOL]
    found = bool(answers[order].any())
    if not found and answers.any():
        order[-1] = np.argmax(np.where(answers, scored.final, -np.inf))
    places = np.full(POOL, -1)
    places[: len(order)] = order

    def column(values: np.ndarray) -> np.ndarray:
        return np.where(places < 0, 0, values[places])

    return (
        places,
        column(scored.final),
        column(scored.cosine),
        column(scored.keywords),
        column(answers),
        found,
    )


def _drawn(count: int, limit: int | None, seed: int) -> Sequence[int]:
    if limit is None or limit >= count:
        return range(count)
    return sorted(random.Random(seed).sample(range(count), limit))  # noqa: S311
