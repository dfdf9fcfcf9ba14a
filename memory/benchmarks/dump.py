"""Measures what a dump tells of one user's memories to somebody who knows some of the texts.

A public collection's documents are cut into two halves: one is stored by a throw-away user, the other is what the
attacker knows of such texts in general. Of the stored half the attacker is told some texts, and not which rows they
are; the rows come as a dump has them.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from django.conf import settings

from memory.benchmarks.beir import Collection
from memory.benchmarks.command import progress
from memory.benchmarks.dump_attacks import (
    NOWHERE,
    Rows,
    Weights,
    by_distances,
    by_geometry,
    by_size,
    by_weights,
    guessed,
    named,
    turning_back,
)
from memory.benchmarks.embedding_cache import embeddings
from memory.benchmarks.report import Report, Row
from memory.benchmarks.tenants import benchmark_user, throwaway_tenants
from memory.documents.document import Document
from memory.index.bm25 import dimension_of, lexical_vector
from memory.index.context import header_of
from memory.index.recipe import configured
from memory.index.rows import PlainChunk
from memory.index.text_analysis import analyse
from memory.index.vectors import unit
from memory.indexing import index_documents
from memory.rls import tenant_transaction
from memory.sealing.subkeys import lexical_subkey
from memory.security import OVERHEAD
from memory.tenancy.cursors import binary_cursor

BATCH = 250
FOUND = 10
PADDINGS = (0, 64, 256, 1_024)
MOST_QUESTIONS = 1_000
# Of rows that carry nothing of the order in which they were stored: an attacker's own is no better than ours.
AS_DUMPED = (
    "SELECT id, octet_length(text_cipher), embedding, lexical FROM memory_chunks JOIN memory_vectors"
    " USING (user_hash, id) WHERE user_hash = %s ORDER BY md5(id::text)"
)
EXPLAINED = (
    "rows_by_…: known texts whose rows were found, by the size of the sealed text, by the weights of its keyed terms,"
    " by cosines alone (the rest goes on from these rows). cosine: of the other rows, turned back, with what was"
    " embedded. recognised: of the other stored texts, when the attacker tries them word for word, those found in their"
    " row; mistaken: of the texts outside, those taken for a stored one. search: recall@10 of the collection's"
    " questions over the rows turned back; the owner's own is in the notes. words: of the keyed terms in the other"
    " rows, those named for certain, rightly and wrongly; guessed: those that frequencies name as well."
)
SIZES_EXPLAINED = (
    "sizes: of the sealed texts under a MEMORY_SEAL_PADDING of so many bytes: different sizes, the share of rows whose"
    " size no other has, what a size tells in bits (entropy), and bytes of the seals beside those without padding."
)


@dataclass(frozen=True)
class Options:
    """`known`: how many texts the attacker is told, one row of figures each; `draws`: over how many choices of them
    the figures are means."""

    known: Sequence[int] = (0, 10, 100, 1_000)
    draws: int = 3
    seed: int = 0
    cache: Path | None = None
    verbosity: int = 1


@dataclass(frozen=True)
class Texts:
    """Chunks with what anybody makes of them: embeddings, float32 (n, d), and terms with their BM25 weights."""

    chunks: Sequence[PlainChunk]
    vectors: np.ndarray
    weights: Sequence[Mapping[str, float]]

    def as_rows(self) -> Rows:
        """As they are compared with the rows of a dump."""
        return Rows(self.sizes(settings.MEMORY_SEAL_PADDING), unit(self.vectors), self.weights)

    def sizes(self, padding: int) -> np.ndarray:
        """Bytes of the sealed texts under a MEMORY_SEAL_PADDING."""
        lengths = np.array([len(chunk.text.encode()) for chunk in self.chunks])
        return OVERHEAD + (-(-lengths // padding) * padding if padding else lengths)

    def take(self, places: Sequence[int] | np.ndarray) -> "Texts":
        """Some of them, in this order."""
        chunks, weights = [self.chunks[place] for place in places], [self.weights[place] for place in places]
        return Texts(chunks, self.vectors[places], weights)

    def document_frequencies(self) -> Counter[str]:
        """In how many of them each term stands."""
        return Counter(chain.from_iterable(self.weights))


@dataclass(frozen=True)
class Dumped:
    """The rows of the user, the text of each by its place, and the term of each dimension, to judge guesses by."""

    rows: Rows
    stored: Texts
    names: Mapping[Any, str]


@dataclass(frozen=True)
class Questions:
    """Embedded questions, float32 (n, d), and the places of the rows that answer each."""

    vectors: np.ndarray
    answers: Sequence[set[int]]

    def recall(self, rows: np.ndarray, without: set[int]) -> float:
        """recall@10 over rows in the space of the questions; a question that a known row answers is not asked."""
        shares = []
        best = np.argsort(-(self.vectors @ rows.T), axis=1)[:, :FOUND]
        for found, answers in zip(best.tolist(), self.answers, strict=True):
            if answers and not answers & without:
                shares.append(len(answers & set(found)) / min(len(answers), FOUND))
        return float(np.mean(shares)) if shares else float("nan")


def measure_dump(collection: Collection, options: Options) -> Report:
    """Store half of a collection, read it back as a dump has it, attack it, and erase it again."""
    stored, outside = _halves(collection, options)
    user_id = benchmark_user(f"dump-{collection.name}")
    stored_texts = _texts(stored, options)
    with throwaway_tenants([user_id]):
        dumped = _dumped(user_id, stored_texts, _store(user_id, stored, options))
    like = _texts(outside, options)
    questions = _questions(collection, dumped, options)
    report = Report(f"benchmark_dump {collection.name}")
    report.results = [
        _row(dumped, like, questions, known, options) for known in options.known if known < len(dumped.rows)
    ]
    report.sections = {"sizes": [_sizes(stored_texts, padding) for padding in PADDINGS]}
    report.notes = [EXPLAINED, SIZES_EXPLAINED, *_said(dumped, like, questions, options)]
    return report


def _halves(collection: Collection, options: Options) -> tuple[list[Document], list[Document]]:
    order = np.random.default_rng(options.seed).permutation(len(collection.documents))
    shuffled = [collection.documents[place] for place in order]
    half = len(shuffled) // 2
    return shuffled[:half], shuffled[half:]


def _texts(documents: Sequence[Document], options: Options) -> Texts:
    chunks = [document.plain(place) for document in documents for place in range(len(document.chunks))]
    vectors = embeddings(_embedded(documents), "passages", cache=options.cache, verbosity=options.verbosity)
    return Texts(chunks, vectors, [_weights(chunk) for chunk in chunks])


def _embedded(documents: Sequence[Document]) -> list[str]:
    return Collection("", "", list(documents), []).texts()


def _weights(chunk: PlainChunk) -> dict[str, float]:
    """The weights of a chunk's terms, which need no key."""
    recipe = configured()
    if recipe.language is None:
        return {}
    header = header_of(chunk, recipe.header)
    keyed = lexical_vector(chunk.text, bytes(32), recipe.language, header=header)
    terms = dict.fromkeys([*analyse(header, recipe.language), *analyse(chunk.text, recipe.language)])
    found = {term: keyed.get(dimension_of(term, bytes(32))) for term in terms}
    return {term: weight for term, weight in found.items() if weight is not None}


def _store(user_id: str, documents: Sequence[Document], options: Options) -> list[UUID]:
    """Index the documents, with their embeddings; returns the ids of their chunks in order."""
    vectors = iter(embeddings(_embedded(documents), "passages", cache=options.cache, verbosity=options.verbosity))
    given = [
        replace(document, chunks=tuple(replace(chunk, embedding=next(vectors)) for chunk in document.chunks))
        for document in documents
    ]
    ids: list[UUID] = []
    batches = [given[first : first + BATCH] for first in range(0, len(given), BATCH)]
    for batch in progress(batches, "Storing", verbosity=options.verbosity, unit="batch"):
        ids += [id for done in index_documents(user_id=user_id, documents=batch) for id in done.chunk_ids]
    return ids


def _dumped(user_id: str, texts: Texts, ids: Sequence[UUID]) -> Dumped:
    with tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
        found = cursor.execute(AS_DUMPED, [user_hash]).fetchall()
        subkey = lexical_subkey(user_hash)
    weights = [_by_dimension(lexical) for *_, lexical in found]
    vectors = np.stack([vector.to_numpy() for _, _, vector, _ in found])
    rows = Rows(np.array([size for _, size, *_ in found]), vectors, weights)
    place = {id: number for number, id in enumerate(ids)}
    stored = texts.take([place[id] for id, *_ in found])
    names = {dimension_of(term, subkey): term for term in chain.from_iterable(stored.weights)}
    return Dumped(rows, stored, names)


def _by_dimension(lexical: Any) -> Weights:
    return {} if lexical is None else dict(zip(lexical.indices(), lexical.values(), strict=True))


def _questions(collection: Collection, dumped: Dumped, options: Options) -> Questions:
    places: dict[str, set[int]] = {}
    for place, chunk in enumerate(dumped.stored.chunks):
        places.setdefault(chunk.doc_id, set()).add(place)
    asked, answers = [], []
    for query in collection.queries[:MOST_QUESTIONS]:
        found = [places[doc_id] for doc_id, grade in query.judged.items() if grade > 0 and doc_id in places]
        if found:
            asked.append(query.text)
            answers.append(set.union(*found))
    vectors = embeddings(asked, "questions", cache=options.cache, verbosity=options.verbosity)
    return Questions(unit(vectors) if asked else vectors, answers)


def _row(dumped: Dumped, like: Texts, questions: Questions, known: int, options: Options) -> Row:
    """The means over the draws of one number of known texts."""
    draws = [
        _attacked(dumped, like, questions, np.random.default_rng([options.seed, known, draw]), known)
        for draw in range(options.draws if known else 1)
    ]
    means = {name: [draw[name] for draw in draws if draw[name] is not None] for name in draws[0]}
    return {"known": known, **{name: float(np.mean(values)) if values else None for name, values in means.items()}}


def _attacked(dumped: Dumped, like: Texts, questions: Questions, rng: np.random.Generator, known: int) -> Row:
    told = rng.permutation(len(dumped.rows))[:known]
    texts = dumped.stored.take(told).as_rows()
    placed = by_geometry(dumped.rows, texts)
    found = placed != NOWHERE
    return {
        "rows_by_size": _share_right(dumped, told, by_size(dumped.rows, texts)),
        "rows_by_terms": _share_right(dumped, told, by_weights(dumped.rows, texts)),
        "rows_by_cosines": _share_right(dumped, told, placed),
        **_vectors(dumped, like, questions, told[found], placed[found]),
        **_words(dumped, like, told[found], placed[found]),
    }


def _share_right(dumped: Dumped, told: np.ndarray, placed: np.ndarray) -> float | None:
    """Of the known texts, how many were given a row that holds that very text."""
    chunks = dumped.stored.chunks
    right = [at != NOWHERE and chunks[at].text == chunks[text].text for text, at in zip(told, placed, strict=True)]
    return float(np.mean(right)) if right else None


def _vectors(dumped: Dumped, like: Texts, questions: Questions, told: np.ndarray, placed: np.ndarray) -> Row:
    names = ("cosine", "recognised", "mistaken", "search")
    if not len(placed):
        return dict.fromkeys(names)
    rows, stored = dumped.rows.vectors, unit(dumped.stored.vectors)
    others = np.setdiff1d(np.arange(len(rows)), placed)
    back = rows @ turning_back(rows[placed], stored[told])
    lengths = np.maximum(np.linalg.norm(back, axis=1), np.finfo(np.float32).tiny)
    seen = by_distances(rows, stored[others], rows[placed], stored[told])
    strange = by_distances(rows, unit(like.vectors), rows[placed], stored[told])
    values = (
        float(((back * stored).sum(1) / lengths)[others].mean()),
        _share_right(dumped, others, seen),
        float((strange != NOWHERE).mean()),
        questions.recall(back / lengths[:, None], set(placed.tolist())),
    )
    return dict(zip(names, values, strict=True))


def _words(dumped: Dumped, like: Texts, told: np.ndarray, placed: np.ndarray) -> Row:
    rows, texts = dumped.rows.weights, [dumped.stored.weights[place] for place in told]
    others = [row for place, row in enumerate(rows) if place not in set(placed.tolist())]
    certain = named([rows[place] for place in placed], texts)
    frequent = guessed(rows, placed.tolist(), texts, like.document_frequencies())
    return {
        **dict(zip(("words", "words_wrong"), _shares(dumped, others, certain), strict=True)),
        **dict(zip(("guessed", "guessed_wrong"), _shares(dumped, others, frequent | certain), strict=True)),
    }


def _shares(dumped: Dumped, rows: Sequence[Weights], names: Mapping[Hashable, str]) -> tuple[float, float]:
    """Of the keyed terms in these rows, the shares that are named rightly and wrongly."""
    there = Counter(dimension for row in rows for dimension in row)
    right = sum(count for each, count in there.items() if names.get(each) == dumped.names[each])
    wrong = sum(count for each, count in there.items() if each in names) - right
    total = max(1, sum(there.values()))
    return right / total, wrong / total


def _sizes(texts: Texts, padding: int) -> Row:
    sizes, bare = texts.sizes(padding), texts.sizes(0)
    _, counts = np.unique(sizes, return_counts=True)
    shares = counts / len(sizes)
    return {
        "padding": padding,
        "sizes": len(counts),
        "alone": float((counts == 1).sum() / len(sizes)),
        "bits": float(-(shares * np.log2(shares)).sum()),
        "bytes": float(sizes.sum() / bare.sum()),
    }


def _said(dumped: Dumped, like: Texts, questions: Questions, options: Options) -> Iterator[str]:
    owner = questions.recall(unit(dumped.stored.vectors), set())
    yield (
        f"{len(dumped.rows):,} rows stored, {len(like.chunks):,} chunks of the same kind outside;"
        f" {len(dumped.names):,} different terms. Means over {options.draws} choices of the known texts."
    )
    if too_many := [known for known in options.known if known >= len(dumped.rows)]:
        yield f"{', '.join(map(str, too_many))} known texts were not measured: there are no more rows."
    yield f"MEMORY_SEAL_PADDING was {settings.MEMORY_SEAL_PADDING}."
    yield f"search: {len(questions.answers):,} questions; the owner's recall@{FOUND} by the same vectors: {owner:.3f}."
    yield f"Rotation {'on' if settings.MEMORY_VECTOR_ROTATION else 'off'}; it keeps cosines, which is all that is used."
