"""Index search: candidates of an outgrown tenant from the vector graph, the postings, and the tail that is in neither.

All of them are then scored exactly.

Row-level security lets only leakproof comparisons into an index condition, so the terms stand in a btree, not in GIN;
the graph is HNSW with an iterative scan, which goes on until enough of this tenant's rows have come by.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pgvector import SparseVector

from memory.index.bm25 import DIMENSIONS, query_vector
from memory.search.exact_scan import PINS as EXACT_PINS
from memory.search.narrowing import few_in_scope
from memory.search.ranking_sql import Statement, base_parameters, best_rows
from memory.search.search_parameters import SearchParameters
from memory.tenancy.cursors import Send, pipeline
from memory.tenancy.planner_settings import planner_settings

DEPTH = 200  # candidates from the graph, and as many from the postings
POSTINGS = 2_000  # of each term, the heaviest first; the others still count where a row is scored
POSTINGS_IN_SCOPE = 500  # where a scope narrows: every posting's row has to be looked up

_IN_SCOPE = """
            CROSS JOIN LATERAL (
                SELECT FROM memory_vectors v WHERE v.user_hash = %(user_hash)s AND v.id = t.id{conditions} OFFSET 0
            ) v"""

_BASE = """dense, bm25 * scale AS lexical,
        %(dense_weight)s::float8 * dense + %(lexical_weight)s::float8 * bm25 * scale AS base"""

# The planner may not swap the graph for a sort over all rows of the tenant: sorting and the other scans are off.
PINS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "enable_nestloop": "on",
    "plan_cache_mode": "force_generic_plan",
    "hnsw.ef_search": str(DEPTH),
    "hnsw.iterative_scan": "relaxed_order",
    "hnsw.max_scan_tuples": "40000",
}


def graph_candidates(send: Send, search: SearchParameters, chunk_count: int) -> list[Any] | None:
    """The best rows of an outgrown tenant, best first; None where a scan of all its rows is the better way: while most
    are outside the indexes, and when the graph yields less than it should, since the scope leaves too few rows near
    the query or somebody else's rows crowd them out. Of a scope that an index finds few rows in, these are taken."""
    dense = bool(search.weights.dense)
    with pipeline(), planner_settings(send, PINS, around=EXACT_PINS):
        # The tail first: a row that moves into the indexes meanwhile is then found twice, and never missed.
        tail, posted = send(*_tail(search)), send(*_posted(search))
        few = few_in_scope(send, search) if search.scope.narrows else None
        near = send(*nearest(search)).fetchall() if dense and few is None else []
        ((ids, *in_tail),) = tail.fetchall()
        outside = set(ids or ())
        if few is None and not _is_enough(search, len(near), len(outside), chunk_count):
            return None
        idfs = _idfs(search, dict(posted.fetchall()), in_tail, chunk_count)
        found = few
        if found is None:
            found = {chunk_id for (chunk_id,) in [*near, *send(*holding(search, idfs)).fetchall()]}
        return send(*rescored(search, idfs, found | outside)).fetchall()


def _is_enough(search: SearchParameters, near: int, outside: int, chunk_count: int) -> bool:
    """Whether the graph yielded what it should."""
    if search.scope.narrows:
        # Not known is how many rows a scope leaves. Without near ones, what a term's best postings miss were missed.
        return near >= _depth(search) and outside <= chunk_count - outside
    # A graph may miss some rows that nothing leads to.
    inside = max(0, chunk_count - outside)
    return outside <= inside and (not search.weights.dense or near >= min(_depth(search), inside) // 2)


def nearest(search: SearchParameters) -> Statement:
    """The rows of the graph that are nearest to the query, in scope."""
    conditions, parameters = search.scope.conditions(search.user_hash, search.recipe)
    sql = f"""
    SELECT v.id FROM memory_vectors v
    WHERE v.user_hash = %(user_hash)s AND v.outgrown{conditions}
    ORDER BY v.embedding <#> %(vector)b
    LIMIT %(depth)s
    """  # noqa: S608  (names come from this package, values are parameters)
    return sql, {
        "user_hash": search.user_hash,
        "vector": search.vector,
        "depth": _depth(search),
        **parameters,
    }


def holding(search: SearchParameters, idfs: Mapping[int, float]) -> Statement:
    """The rows in scope with the highest score, as far as each term's best postings in scope tell.

    Without a scope the postings' rows are not looked up: of the few that have expired but are not purged, `rescored`
    keeps none.
    """
    nothing: tuple[str, dict[str, Any]] = ("", {})
    narrows = search.scope.narrows
    conditions, parameters = search.scope.conditions(search.user_hash, search.recipe) if narrows else nothing
    sql = f"""
    SELECT t.id
    FROM unnest(%(terms)b::int4[], %(idfs)b::float8[]) AS wanted (term, idf)
    CROSS JOIN LATERAL (
        SELECT t.id, t.weight FROM memory_terms t{_IN_SCOPE.format(conditions=conditions) if conditions else ""}
        WHERE t.user_hash = %(user_hash)s AND t.term = wanted.term
        ORDER BY t.weight DESC LIMIT %(postings)s
    ) t
    GROUP BY t.id ORDER BY sum(t.weight * wanted.idf) DESC, t.id LIMIT %(depth)s
    """  # noqa: S608
    return sql, {
        "user_hash": search.user_hash,
        "terms": list(idfs),
        "idfs": list(idfs.values()),
        "postings": POSTINGS_IN_SCOPE if conditions else POSTINGS,
        "depth": _depth(search),
        **parameters,
    }


def rescored(search: SearchParameters, idfs: Mapping[int, float], ids: set[UUID]) -> Statement:
    """Score the given rows exactly, let the rows beside the best of them join in, keep the best."""
    conditions, parameters = search.scope.conditions(search.user_hash, search.recipe)
    scores = "-(v.embedding <#> %(vector)b) AS dense, coalesce(-(v.lexical <#> %(terms)b), 0) AS bm25"
    sql = f"""
    WITH scored AS MATERIALIZED (
        SELECT v.id, v.doc_id, v.chunk_index, {scores}
        FROM memory_vectors v
        WHERE v.user_hash = %(user_hash)s AND v.id = ANY (%(ids)b::uuid[]){conditions}
    ), scale AS MATERIALIZED (SELECT coalesce(1 / nullif(max(bm25), 0), 0) AS scale FROM scored
    ), reached AS (SELECT id, doc_id, chunk_index, {_BASE} FROM scored, scale
    ), {best_rows(search, _beside(scores, conditions))}
    """  # noqa: S608
    return sql, {
        **base_parameters(search),
        "terms": SparseVector(dict(idfs), DIMENSIONS),
        "ids": list(ids),
        **parameters,
    }


def _beside(scores: str, conditions: str) -> str:
    """The step `near`, looked up by document: rows beside the best need not have been reached themselves."""
    return f"""near AS MATERIALIZED (
        SELECT v.id, v.doc_id, v.chunk_index, {_BASE}, distance
        FROM wanted CROSS JOIN scale
        CROSS JOIN LATERAL (
            SELECT c.id FROM memory_chunks c
            WHERE c.user_hash = %(user_hash)s AND c.doc_id = wanted.doc_id AND c.chunk_index = wanted.chunk_index
            OFFSET 0
        ) c
        CROSS JOIN LATERAL (
            SELECT v.id, v.doc_id, v.chunk_index, {scores}
            FROM memory_vectors v WHERE v.user_hash = %(user_hash)s AND v.id = c.id{conditions} OFFSET 0
        ) v
    )"""  # noqa: S608


def _tail(search: SearchParameters) -> Statement:
    """One row: the ids outside the indexes, and in how many of them each of the query's terms occurs."""
    units = {f"term{number}": SparseVector({term: 1.0}, DIMENSIONS) for number, term in enumerate(search.terms)}
    counts = "".join(f", count(nullif(lexical <#> %({name})b, 0))" for name in units)
    sql = f"SELECT array_agg(id){counts} FROM memory_vectors WHERE user_hash = %(user_hash)s AND NOT outgrown"  # noqa: S608
    return sql, {"user_hash": search.user_hash, **units}


def _posted(search: SearchParameters) -> Statement:
    """In how many postings each of the query's terms occurs."""
    return (
        "SELECT term, count(*) FROM memory_terms"
        " WHERE user_hash = %(user_hash)s AND term = ANY (%(terms)b::int4[]) GROUP BY term",
        {"user_hash": search.user_hash, "terms": search.terms},
    )


def _idfs(
    search: SearchParameters, posted: Mapping[int, int], in_tail: Sequence[int], chunk_count: int
) -> dict[int, float]:
    """The inverse document frequency of each term, over the rows in the indexes and in the tail."""
    frequencies = {term: posted.get(term, 0) + count for term, count in zip(search.terms, in_tail, strict=True)}
    return query_vector(search.terms, frequencies, chunk_count)


def _depth(search: SearchParameters) -> int:
    return max(DEPTH, search.limit)
