"""Which way a question goes: by the tenant's row count, never by the planner's luck."""

import logging
from dataclasses import dataclass
from typing import Any

import psycopg

from memory import metrics
from memory.asking import Question
from memory.exact_scan import exact_scan
from memory.graph_search import TooSelective, graph_candidates
from memory.growing import has_outgrown
from memory.recipe import Recipe, recorded

logger = logging.getLogger(__name__)

GRAPH_INDEX = "memory_vectors_graph"
STATE = """
SELECT chunk_count, recipe,
       coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)), false)
FROM tenants WHERE user_hash = %s
"""


@dataclass(frozen=True)
class TenantState:
    """What decides how a tenant is asked: its size, how its rows were indexed, whether the graph can be used."""

    chunk_count: int
    recipe: Recipe
    graph_is_valid: bool


def tenant_state(cursor: psycopg.Cursor[Any], user_hash: str) -> TenantState | None:
    """The state of the open door's tenant; None for a user who has stored nothing."""
    cursor.execute(STATE, [GRAPH_INDEX, user_hash])
    row = cursor.fetchone()
    return row and TenantState(row[0], recorded(row[1]), row[2])


def candidate_rows(cursor: psycopg.Cursor[Any], question: Question, state: TenantState) -> list[Any]:
    """The rows of the best candidates, best first, by the path of the tenant's size.

    A graph that is missing or being built, and a scope that the graph finds too little of, mean the exact path.
    """
    if has_outgrown(state.chunk_count) and _graph_is_there(state):
        try:
            rows = graph_candidates(cursor, question, state.chunk_count)
            metrics.CANDIDATE_SEARCHES.labels("graph").inc()
            return rows
        except TooSelective:
            pass
    metrics.CANDIDATE_SEARCHES.labels("exact").inc()
    cursor.execute(*exact_scan(question))
    return cursor.fetchall()


def _graph_is_there(state: TenantState) -> bool:
    if not state.graph_is_valid:
        logger.warning(
            "the vector graph is missing or being built: a large tenant is scanned exactly, which is slow",
            extra={"index": GRAPH_INDEX},
        )
    return state.graph_is_valid
