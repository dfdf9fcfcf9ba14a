"""Candidates of an outgrown tenant: near ones from the vector graph, those that hold the terms from the postings, and
the whole tail that is in neither; then all of them scored exactly.

Row-level security lets only leakproof comparisons into an index condition, so the terms stand in a btree, not in GIN;
the graph is HNSW with an iterative scan, which goes on until enough of this tenant's rows have come by.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
from pgvector import SparseVector

from memory.asking import Question
from memory.exact_scan import BEST_ROWS, Statement
from memory.lexical import DIMENSIONS, query_vector

DEPTH = 200  # candidates from the graph, and as many from the postings
POSTINGS = 2_000  # of each term, the heaviest first; the others still count where a row is scored
BESIDE = 3  # times the limit: rows whose neighbours are looked up

# The planner may not swap the graph for a sort over all rows of the tenant: sorting and the other scans are off.
PINS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "hnsw.ef_search": str(DEPTH),
    "hnsw.iterative_scan": "relaxed_order",
    "hnsw.max_scan_tuples": "40000",
}


class TooSelective(Exception):
    """The graph yielded fewer rows than asked: so few are in scope that scanning them is both exact and quick."""


def graph_candidates(cursor: psycopg.Cursor[Any], question: Question, chunk_count: int) -> list[Any]:
    """The best rows of an outgrown tenant, best first. Raises TooSelective."""
    # The tail first: a row that moves into the indexes meanwhile is then found twice, and never missed.
    tail, in_tail = _tail(cursor, question)
    near = _near(cursor, question)
    frequencies = _document_frequencies(cursor, question, in_tail)
    idfs = query_vector(question.terms, frequencies, chunk_count)
    ids = tail | near | _holding(cursor, question, idfs)
    with pinned(cursor):
        cursor.execute(*rescored(question, idfs, ids))
        return cursor.fetchall()


def nearest(question: Question) -> Statement:
    """The rows of the graph that are nearest to the question, in scope."""
    conditions, parameters = question.scope.conditions(question.user_hash, question.recipe)
    sql = f"""
    SELECT v.id FROM memory_vectors v
    WHERE v.user_hash = %(user_hash)s AND v.outgrown{conditions}
    ORDER BY v.embedding <#> %(vector)b
    LIMIT %(depth)s
    """  # noqa: S608  (names come from this package, values are parameters)
    return sql, {
        "user_hash": question.user_hash,
        "vector": question.vector,
        "depth": max(DEPTH, question.limit),
        **parameters,
    }


def holding(question: Question, idfs: Mapping[int, float]) -> Statement:
    """The rows in scope with the highest score, as far as each term's POSTINGS best postings tell."""
    conditions, parameters = question.scope.conditions(question.user_hash, question.recipe)
    join = "JOIN memory_vectors v ON v.user_hash = %(user_hash)s AND v.id = t.id" if conditions else ""
    sql = f"""
    SELECT t.id
    FROM unnest(%(terms)b::int4[], %(idfs)b::float8[]) AS asked (term, idf)
    CROSS JOIN LATERAL (
        SELECT id, weight FROM memory_terms
        WHERE user_hash = %(user_hash)s AND term = asked.term
        ORDER BY weight DESC LIMIT %(postings)s
    ) t
    {join}
    WHERE true{conditions}
    GROUP BY t.id ORDER BY sum(t.weight * asked.idf) DESC, t.id LIMIT %(depth)s
    """  # noqa: S608
    return sql, {
        "user_hash": question.user_hash,
        "terms": list(idfs),
        "idfs": list(idfs.values()),
        "postings": POSTINGS,
        "depth": max(DEPTH, question.limit),
        **parameters,
    }


def rescored(question: Question, idfs: Mapping[int, float], ids: set[UUID]) -> Statement:
    """Score the given rows exactly, let the neighbours of the most promising join in, keep the best."""
    conditions, parameters = question.scope.conditions(question.user_hash, question.recipe)
    scores = """-(v.embedding <#> %(vector)b) AS dense, coalesce(-(v.lexical <#> %(terms)b), 0) AS bm25"""
    sql = f"""
    WITH reached AS MATERIALIZED (
        SELECT v.id, v.doc_id, v.chunk_index, {scores}
        FROM memory_vectors v
        WHERE v.user_hash = %(user_hash)s AND v.id = ANY (%(ids)b::uuid[]){conditions}
    ), scale AS MATERIALIZED (SELECT coalesce(1 / nullif(max(bm25), 0), 0) AS scale FROM reached
    ), promising AS MATERIALIZED (
        SELECT id, doc_id, chunk_index, dense, bm25 * scale AS lexical,
               %(dense_weight)s::float8 * dense + %(lexical_weight)s::float8 * bm25 * scale AS base
        FROM reached, scale
        ORDER BY base DESC, id
        LIMIT %(promising)s
    ), beside AS (
        SELECT p.id AS beside_id, v.id, {scores}
        FROM promising p
        CROSS JOIN LATERAL (
            SELECT id FROM memory_chunks c
            WHERE c.user_hash = %(user_hash)s AND c.doc_id = p.doc_id
                AND c.chunk_index = ANY (ARRAY[p.chunk_index - 1, p.chunk_index + 1])
            ORDER BY c.chunk_index LIMIT 2 -- an order that the index of documents has, and with sorting off no other
        ) c
        CROSS JOIN LATERAL (
            SELECT * FROM memory_vectors v WHERE v.user_hash = %(user_hash)s AND v.id = c.id{conditions} OFFSET 0
        ) v
        WHERE %(neighbour_weight)s::float8 <> 0
    ), neighbours AS MATERIALIZED (
        SELECT beside_id,
               avg(%(dense_weight)s::float8 * dense + %(lexical_weight)s::float8 * bm25 * scale) AS neighbours
        FROM beside, scale
        GROUP BY beside_id
    ), best AS MATERIALIZED (
        SELECT p.id, doc_id, chunk_index, dense, lexical, neighbours,
               base + %(neighbour_weight)s::float8 * coalesce(neighbours, 0) AS score
        FROM promising p LEFT JOIN neighbours ON beside_id = p.id
        ORDER BY score DESC, id
        LIMIT %(limit)s
    )
    {BEST_ROWS}
    """  # noqa: S608
    return sql, {
        "user_hash": question.user_hash,
        "recipe": question.recipe.as_text(),
        "vector": question.vector,
        "terms": SparseVector(dict(idfs), DIMENSIONS),
        "ids": list(ids),
        "limit": question.limit,
        "promising": BESIDE * question.limit,
        "dense_weight": question.weights.dense,
        "lexical_weight": question.weights.lexical,
        "neighbour_weight": question.weights.neighbour,
        **parameters,
    }


@contextmanager
def pinned(cursor: psycopg.Cursor[Any]) -> Iterator[None]:
    """Planner settings of the graph for the statements inside; the transaction gets its own back."""
    connection = cursor.connection
    connection.execute("; ".join(f"SET LOCAL {name} = '{value}'" for name, value in PINS.items()).encode())
    yield
    connection.execute("; ".join(f"SET LOCAL {name} TO DEFAULT" for name in PINS).encode())


def _near(cursor: psycopg.Cursor[Any], question: Question) -> set[UUID]:
    if not question.weights.dense:
        return set()
    with pinned(cursor):
        sql, parameters = nearest(question)
        cursor.execute(sql, parameters)
        near = {chunk_id for (chunk_id,) in cursor.fetchall()}
    if question.scope.narrows and len(near) < parameters["depth"]:
        raise TooSelective
    return near


def _tail(cursor: psycopg.Cursor[Any], question: Question) -> tuple[set[UUID], list[int]]:
    """The rows outside the indexes, and in how many of them each of the question's terms occurs."""
    units = {f"term{number}": SparseVector({term: 1.0}, DIMENSIONS) for number, term in enumerate(question.terms)}
    counts = "".join(f", count(nullif(lexical <#> %({name})b, 0))" for name in units)
    cursor.execute(
        f"SELECT array_agg(id){counts} FROM memory_vectors WHERE user_hash = %(user_hash)s AND NOT outgrown",  # noqa: S608
        {"user_hash": question.user_hash, **units},
    )
    ids, *frequencies = cursor.fetchone() or (None,)
    return set(ids or ()), frequencies


def _document_frequencies(cursor: psycopg.Cursor[Any], question: Question, in_tail: Sequence[int]) -> dict[int, int]:
    """In how many of the tenant's rows each term occurs: in the postings and in the tail."""
    if not question.terms:
        return {}
    cursor.execute(
        "SELECT term, count(*) FROM memory_terms WHERE user_hash = %s AND term = ANY (%b::int4[]) GROUP BY term",
        [question.user_hash, question.terms],
    )
    posted = dict(cursor.fetchall())
    return {term: posted.get(term, 0) + count for term, count in zip(question.terms, in_tail, strict=True)}


def _holding(cursor: psycopg.Cursor[Any], question: Question, idfs: Mapping[int, float]) -> set[UUID]:
    """The rows with the highest score over each term's best postings."""
    if not idfs:
        return set()
    with pinned(cursor):
        cursor.execute(*holding(question, idfs))
        return {chunk_id for (chunk_id,) in cursor.fetchall()}
