"""The last steps of both searches, in SQL: from the rows that were reached to the sealed rows of the best.

    reached   id, doc_id, chunk_index, dense, lexical (0 to 1), base: what the search before has found
    near      the rows that may be among the best, and those beside them
    best      the best `limit` by their final score, then opened from `memory_chunks`

Neighbours only ever lift a row, and never above them: a row that is not among the best by itself gets there only beside
one that is. So the best, and the rows up to two places from them, are all that has to be looked at.
"""

from typing import Any

from django.conf import settings

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

# The columns of memory.search.retrieval.Candidate; nothing when a reindex has just changed what to ask. The seals of a
# row with which an answer would pass its bytes stay behind, except the first row's: they are NULL.
# While the statistics do not know a new tenant, the planner takes it for a single row, and would run whole steps again
# for every row there is. So every step that others read is materialised, the rows are fetched one by one (OFFSET 0
# keeps that from being turned around), and both unique keys are named, whichever of the two indexes it takes.
OPENED = """SELECT id, doc_id, source, chunk_index, enc_key_id,
           CASE WHEN so_far <= greatest(%(most_bytes)s::int8, bytes) THEN text_cipher END,
           CASE WHEN so_far <= greatest(%(most_bytes)s::int8, bytes) THEN meta_cipher END,
           CASE WHEN so_far <= greatest(%(most_bytes)s::int8, bytes) THEN context_cipher END,
           created_at, occurred_at, expires_at, score, dense, lexical, neighbours
    FROM (
        SELECT c.*, best.score, best.dense, best.lexical, coalesce(best.neighbours, 0) AS neighbours,
               sum(bytes) OVER (ORDER BY best.score DESC, best.id ROWS UNBOUNDED PRECEDING) AS so_far
        FROM best CROSS JOIN LATERAL (
            SELECT id, doc_id, source, chunk_index, enc_key_id, text_cipher, meta_cipher, context_cipher, created_at,
                   occurred_at, expires_at,
                   octet_length(text_cipher) + octet_length(meta_cipher) + coalesce(octet_length(context_cipher), 0)
                       AS bytes
            FROM memory_chunks c
            WHERE c.user_hash = %(user_hash)s AND c.id = best.id
                AND c.doc_id = best.doc_id AND c.chunk_index = best.chunk_index
            OFFSET 0
        ) c
        WHERE (SELECT recipe FROM tenants WHERE user_hash = %(user_hash)s) = ANY (ARRAY[%(recipe)s::text, ''])
    ) found
    ORDER BY score DESC, id"""


def best_rows(search: SearchParameters, near: str) -> str:
    """Steps from `reached` to rows of memory.search.retrieval.Candidate's fields, best first.

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
        "most_bytes": settings.MEMORY_MAX_ANSWER_BYTES,
        "dense_weight": search.weights.dense,
        "lexical_weight": search.weights.lexical,
        "neighbour_weight": search.weights.neighbour,
    }
