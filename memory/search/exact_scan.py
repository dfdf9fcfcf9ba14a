"""Exact scan: one statement compares a query with every row of one user, so recall is 1.

One scan yields each row's cosine and its weight for each of the query's terms. How many rows hold a term follows
from the same scan, so the inverse document frequencies are true at that moment and nothing has to be maintained; they
are those of the rows in scope.
"""

from pgvector import SparseVector
from psycopg.types.numeric import Int8

from memory.index.bm25 import DIMENSIONS
from memory.search.ranking_sql import ANY_NUMBER, OPENED, Statement, base_parameters, best_rows
from memory.search.search_parameters import SearchParameters

# By the tenant's index, and joined by hashing: nested loops would be taken for a tenant that the statistics do not
# know, and run a step again for every row. Planned once a connection, because planning takes up to 2 ms.
PINS = {"enable_seqscan": "off", "enable_nestloop": "off", "plan_cache_mode": "force_generic_plan"}

# ln(1 + (N - df + 0.5) / (df + 0.5)), as memory.index.bm25 has it: a term's weight is null where a row lacks it.
_IDF = "ln(1 + (count(*) - count({term}) + 0.5::float8) / (count({term}) + 0.5::float8)) AS {term}_idf"

_HOLDS = ", v.lexical, (v.lexical <#> %(any)b) < 0 AS holds"

_NEAR = "near AS MATERIALIZED (SELECT r.*, distance FROM reached r JOIN wanted USING (doc_id, chunk_index))"

# Reading a row's last columns, behind its vector, takes as long as a third of the product: left to the best rows.
_BY_VECTOR = """
    WITH nearest AS MATERIALIZED (
        SELECT v.id, -(v.embedding <#> %(vector)b) AS dense
        FROM memory_vectors v
        WHERE v.user_hash = %(user_hash)s{conditions}
        ORDER BY dense DESC, v.id LIMIT %(limit)s
    ), best AS MATERIALIZED (
        SELECT n.id, place.doc_id, place.chunk_index, n.dense, 0::float8 AS lexical, 0::float8 AS neighbours,
               %(dense_weight)s::float8 * n.dense AS score
        FROM nearest n CROSS JOIN LATERAL (
            SELECT doc_id, chunk_index FROM memory_vectors WHERE user_hash = %(user_hash)s AND id = n.id OFFSET 0
        ) place
    )
    {opened}
    """


def exact_scan(search: SearchParameters, *, most_rows: int = ANY_NUMBER, expiring: bool = True) -> Statement:
    """The best `limit` rows, best first, as rows of memory.search.matches.Candidate's fields, and the parameters.

    No rows of a tenant that has more than `most_rows`; nor, unless `expiring`, of one whose rows may expire. Whether a
    row has expired stands behind its vector: reading it of every row takes a third of the scan again.
    """
    conditions, scope = search.scope.conditions(search.user_hash, search.recipe, expiring=expiring)
    parameters = base_parameters(search) | scope | {"most_rows": Int8(most_rows), "expiring": expiring}
    if not search.terms and not search.weights.neighbour:
        sql = _BY_VECTOR.format(conditions=conditions, opened=OPENED)
        return sql, parameters
    terms = {f"term{number}": dimension for number, dimension in enumerate(search.terms)}
    sql = f"""
    WITH scanned AS ({_scanned(terms, conditions)}
    ), {_reached(terms)}, {best_rows(search, _NEAR)}
    """  # noqa: S608  (names come from this package, values are parameters)
    return sql, parameters | _unit_vectors(terms)


def _scanned(terms: dict[str, int], conditions: str) -> str:
    """Every row's cosine and, of the few that hold any of the terms, its weight for each: null for those it lacks."""
    # OFFSET 0, or each of the columns that are made from these would work them out again.
    rows = f"""
        SELECT v.id, v.doc_id, v.chunk_index, -(v.embedding <#> %(vector)b) AS dense{_HOLDS if terms else ""}
        FROM memory_vectors v
        WHERE v.user_hash = %(user_hash)s{conditions}
        OFFSET 0"""  # noqa: S608
    if not terms:
        return rows
    weights = ", ".join(f"CASE WHEN holds THEN nullif(-(lexical <#> %({term})b), 0) END AS {term}" for term in terms)
    return f"SELECT id, doc_id, chunk_index, dense, holds, {weights} FROM ({rows}) v"  # noqa: S608


def _reached(terms: dict[str, int]) -> str:
    """Steps from `scanned` to `reached`. Working a score out again costs less than keeping it for every row."""
    if not terms:
        return "reached AS (SELECT *, 0::float8 AS lexical, %(dense_weight)s::float8 * dense AS base FROM scanned)"
    idfs = ", ".join(_IDF.format(term=term) for term in terms)
    bm25 = " + ".join(f"coalesce({term}, 0) * {term}_idf" for term in terms)
    return f"""idf AS MATERIALIZED (SELECT {idfs} FROM scanned
    ), weighed AS NOT MATERIALIZED (
        SELECT id, doc_id, chunk_index, dense, CASE WHEN holds THEN {bm25} ELSE 0 END AS bm25 FROM scanned, idf
    ), scale AS MATERIALIZED (SELECT coalesce(1 / nullif(max(bm25), 0), 0) AS scale FROM weighed
    ), reached AS NOT MATERIALIZED (
        SELECT id, doc_id, chunk_index, dense, bm25 * scale AS lexical,
               %(dense_weight)s::float8 * dense + %(lexical_weight)s::float8 * bm25 * scale AS base
        FROM weighed, scale
    )"""  # noqa: S608


def _unit_vectors(terms: dict[str, int]) -> dict[str, SparseVector]:
    # A row's weight for a term is its inner product with that term's unit vector; all together tell whether it has any.
    units = {term: SparseVector({dimension: 1.0}, DIMENSIONS) for term, dimension in terms.items()}
    return units | ({"any": SparseVector(dict.fromkeys(terms.values(), 1.0), DIMENSIONS)} if terms else {})
