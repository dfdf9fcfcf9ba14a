"""The statement that compares a question with every row of one user: recall 1.

One scan yields each row's cosine and its weight for each of the question's terms. How many rows hold a term follows
from the same scan, so the inverse document frequencies are true at that moment and nothing has to be maintained; they
are those of the rows in scope. The first step is materialised: nothing outside it can make the planner leave it.
"""

from typing import Any

from pgvector import SparseVector

from memory.asking import Question
from memory.lexical import DIMENSIONS

Statement = tuple[str, dict[str, Any]]

# ln(1 + (N - df + 0.5) / (df + 0.5)), as memory.lexical has it: a term's weight is null where a row lacks it.
_IDF = "ln(1 + (count(*) - count({term}) + 0.5::float8) / (count({term}) + 0.5::float8)) AS {term}_idf"

# The chunks before and after in the same document, where they are in scope; single-chunk documents have none.
_NEIGHBOURS = """
    avg(base) OVER (
        PARTITION BY doc_id ORDER BY chunk_index RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW
    )"""

# From `best` to the columns of memory.retrieval.Candidate; nothing when a reindex has just changed what to ask.
# While the statistics do not know a new tenant, the planner takes it for a single row, and would run whole steps again
# for every row there is. So every step that others read is materialised, the rows are fetched one by one (OFFSET 0
# keeps that from being turned around), and both unique keys are named, whichever of the two indexes it takes.
BEST_ROWS = """SELECT c.id, c.doc_id, c.source, c.chunk_index, c.enc_key_id, c.text_cipher, c.meta_cipher,
           c.created_at, best.score, best.dense, best.lexical, coalesce(best.neighbours, 0)
    FROM best CROSS JOIN LATERAL (
        SELECT * FROM memory_chunks c
        WHERE c.user_hash = %(user_hash)s AND c.id = best.id
            AND c.doc_id = best.doc_id AND c.chunk_index = best.chunk_index
        OFFSET 0
    ) c
    WHERE (SELECT recipe FROM tenants WHERE user_hash = %(user_hash)s) = ANY (ARRAY[%(recipe)s::text, ''])
    ORDER BY best.score DESC, best.id"""


def exact_scan(question: Question) -> Statement:
    """The best `limit` rows, best first, as rows of (memory.retrieval.Candidate's fields), and the parameters."""
    terms = {f"term{number}": dimension for number, dimension in enumerate(question.terms)}
    conditions, parameters = question.scope.conditions(question.user_hash, question.recipe)
    sql = f"""
    WITH scanned AS MATERIALIZED (
        SELECT v.id, v.doc_id, v.chunk_index, -(v.embedding <#> %(vector)b) AS dense{_term_columns(terms)}
        FROM memory_vectors v
        WHERE v.user_hash = %(user_hash)s{conditions}
    ), {fused("scanned", terms)}, {best(question)}
    """  # noqa: S608  (names come from this package, values are parameters)
    return sql, scan_parameters(question, terms) | parameters


def fused(scanned: str, terms: dict[str, int]) -> str:
    """Steps from per-term weights to `fused`: id, doc_id, chunk_index, dense, lexical (0 to 1), base."""
    if not terms:
        return f"fused AS (SELECT *, 0::float8 AS lexical, %(dense_weight)s::float8 * dense AS base FROM {scanned})"  # noqa: S608
    idfs = ", ".join(_IDF.format(term=term) for term in terms)
    bm25 = " + ".join(f"coalesce({term}, 0) * {term}_idf" for term in terms)
    return f"""idf AS MATERIALIZED (SELECT {idfs} FROM {scanned}
    ), weighed AS MATERIALIZED (
        SELECT id, doc_id, chunk_index, dense, {bm25} AS bm25 FROM {scanned}, idf
    ), scale AS MATERIALIZED (SELECT coalesce(1 / nullif(max(bm25), 0), 0) AS scale FROM weighed
    ), fused AS (
        SELECT id, doc_id, chunk_index, dense, bm25 * scale AS lexical,
               %(dense_weight)s::float8 * dense + %(lexical_weight)s::float8 * bm25 * scale AS base
        FROM weighed, scale
    )"""  # noqa: S608


def best(question: Question) -> str:
    """Steps from `fused` to the sealed rows of the best: neighbours join in, `limit` rows are kept and fetched."""
    neighbours = _NEIGHBOURS if question.weights.neighbour else " 0::float8"
    return f"""beside AS (
        SELECT id, doc_id, chunk_index, dense, lexical, base, {neighbours} AS neighbours FROM fused
    ), best AS MATERIALIZED (
        SELECT id, doc_id, chunk_index, dense, lexical, neighbours,
               base + %(neighbour_weight)s::float8 * coalesce(neighbours, 0) AS score
        FROM beside
        ORDER BY score DESC, id
        LIMIT %(limit)s
    )
    {BEST_ROWS}"""  # noqa: S608


def scan_parameters(question: Question, terms: dict[str, int]) -> dict[str, Any]:
    """The parameters that the steps above name."""
    return {
        "user_hash": question.user_hash,
        "recipe": question.recipe.as_text(),
        "vector": question.vector,
        "limit": question.limit,
        "dense_weight": question.weights.dense,
        "lexical_weight": question.weights.lexical,
        "neighbour_weight": question.weights.neighbour,
        **{term: SparseVector({dimension: 1.0}, DIMENSIONS) for term, dimension in terms.items()},
    }


def _term_columns(terms: dict[str, int]) -> str:
    # A row's weight for one term: its inner product with that term's unit vector, null where it has none.
    return "".join(f", nullif(-(v.lexical <#> %({term})b), 0) AS {term}" for term in terms)
