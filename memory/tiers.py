"""Which way a question goes: by the tenant's row count, never by the planner's luck."""

import logging
from typing import Any

import psycopg

from memory import metrics
from memory.asking import Question
from memory.exact_scan import exact_scan
from memory.graph_search import TooSelective, graph_candidates
from memory.growing import has_outgrown

logger = logging.getLogger(__name__)

GRAPH_INDEX = "memory_vectors_graph"
STATE = """
SELECT chunk_count,
       coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)), false)
FROM tenants WHERE user_hash = %s
"""


def candidate_rows(cursor: psycopg.Cursor[Any], question: Question) -> list[Any]:
    """The rows of the best candidates, best first, by the path of the tenant's size.

    A graph that is missing or being built, and a scope that the graph finds too little of, mean the exact path.
    """
    cursor.execute(STATE, [GRAPH_INDEX, question.user_hash])
    chunk_count, graph_is_valid = cursor.fetchone() or (0, True)
    if has_outgrown(chunk_count):
        if graph_is_valid:
            try:
                rows = graph_candidates(cursor, question, chunk_count)
                metrics.CANDIDATE_SEARCHES.labels("graph").inc()
                return rows
            except TooSelective:
                pass
        else:
            logger.warning(
                "the vector graph is missing or being built: a large tenant is scanned exactly, which is slow",
                extra={"index": GRAPH_INDEX},
            )
    metrics.CANDIDATE_SEARCHES.labels("exact").inc()
    cursor.execute(*exact_scan(question))
    return cursor.fetchall()
