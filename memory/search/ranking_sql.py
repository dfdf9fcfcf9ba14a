"""The last steps of both searches, in SQL: from the rows that were reached to the sealed rows of the best.

    reached   id, doc_id, chunk_index, dense, lexical (0 to 1), base: what the search before has found
    near      the rows that may be among the best, and those beside them
    best      the best `limit` by their final score, then opened from `memory_chunks`

Neighbours only ever lift a row, and never above them: a row that is not among the best by itself gets there only beside
one that is. So the best, and the rows up to two places from them, are all that has to be looked at.
"""

from typing import Any

from django.conf import settings
from psycopg.types.numeric import Int8

from memory.search.search_parameters import SearchParameters

Statement = tuple[str, dict[str, Any]]

_WANTED = """top AS MATERIALIZED (SELECT doc_id, chunk_index FROM reached ORDER BY base DESC, id LIMIT %(limit)s
    ), wanted AS MATERIALIZED (
        SELECT doc_id, chunk_index + step AS chunk_index, min(abs(step)) AS distance
        FROM top, generate_series(-2, 2) AS step
        GROUP BY 1, 2
    )"""

# Where a document has one chunk, or its others are out of scope, there is nothing to lift by. Of a row two places away
# only one neighbour is known, which matters where that one was not reached itself: it lifts others and is no answer.
_LIFTED = """beside AS (
        SELECT *, avg(base) OVER (
            PARTITION BY doc_id ORDER BY chunk_index RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW
        ) AS neighbours
        FROM near
    ), best AS MATERIALIZED (
        SELECT id, doc_id, chunk_index, dense, lexical, neighbours,
               base + %(neighbour_weight)s::float8 * greatest(neighbours - base, 0) AS score
        FROM beside WHERE distance < 2
        ORDER BY score DESC, id LIMIT %(limit)s
    )"""

_UNLIFTED = """best AS MATERIALIZED (
        SELECT *, 0::float8 AS neighbours, base AS score FROM reached ORDER BY base DESC, id LIMIT %(limit)s
    )"""

# The columns of memory.search.matches.Candidate; nothing when a reindex has just changed what to ask, when the tenant
# has more rows than the search is for, or when rows may expire and the search leaves none out (false is below true).
# Seals that take more than a row's share of an answer stay behind (NULL): so all the others together never pass what an
# answer may hold; memory.search.answer_bytes fetches them.
# While the statistics do not know a new tenant, the planner takes it for a single row, and would run whole steps again
# for every row there is. So every step that others read is materialised, the rows are fetched one by one (OFFSET 0
# keeps that from being turned around), and both unique keys are named, whichever of the two indexes it takes.
OPENED = """SELECT c.id, c.doc_id, c.source, c.chunk_index, c.enc_key_id,
           c.text_cipher, c.meta_cipher, c.context_cipher, c.bytes, c.chunk_mac,
           c.created_at, c.updated_at, c.occurred_at, c.expires_at,
           best.score, best.dense, best.lexical, coalesce(best.neighbours, 0)
    FROM best CROSS JOIN LATERAL (
        SELECT id, doc_id, source, chunk_index, enc_key_id, chunk_mac, created_at, updated_at, occurred_at, expires_at,
               bytes,
               CASE WHEN bytes <= %(share)s::int8 THEN text_cipher END AS text_cipher,
               CASE WHEN bytes <= %(share)s::int8 THEN meta_cipher END AS meta_cipher,
               CASE WHEN bytes <= %(share)s::int8 THEN context_cipher END AS context_cipher
        FROM memory_chunks c, LATERAL (
            SELECT octet_length(text_cipher) + octet_length(meta_cipher) + coalesce(octet_length(context_cipher), 0)
                AS bytes
        ) length
        WHERE c.user_hash = %(user_hash)s AND c.id = best.id
            AND c.doc_id = best.doc_id AND c.chunk_index = best.chunk_index
        OFFSET 0
    ) c
    WHERE (
        SELECT recipe = ANY (ARRAY[%(recipe)s::text, '']) AND chunk_count <= %(most_rows)s::int8
            AND expiring <= %(expiring)s::bool
        FROM tenants WHERE user_hash = %(user_hash)s
    )
    ORDER BY best.score DESC, best.id"""
ANY_NUMBER = 2**63 - 1


def best_rows(search: SearchParameters, near: str) -> str:
    """Steps from `reached` to rows of memory.search.matches.Candidate's fields, best first.

    `near`: SQL of that step, from `wanted` (doc_id, chunk_index, distance to one of the
    best); it repeats the columns of `reached` and `distance`.
    """
    best = f"{_WANTED}, {near}, {_LIFTED}" if search.weights.neighbour else _UNLIFTED
    return f"{best}\n    {OPENED}"


def base_parameters(search: SearchParameters) -> dict[str, Any]:
    """The parameters that these steps name, and those of a base score."""
    return {
        "user_hash": search.user_hash,
        "recipe": search.recipe.as_text(),
        "vector": search.vector,
        "limit": search.limit,
        # A plain int's type follows its size, and each type makes another prepared statement.
        "share": Int8(settings.MEMORY_MAX_ANSWER_BYTES // search.limit),
        "most_rows": Int8(ANY_NUMBER),
        "expiring": True,
        "dense_weight": search.weights.dense,
        "lexical_weight": search.weights.lexical,
        "neighbour_weight": search.weights.neighbour,
    }
