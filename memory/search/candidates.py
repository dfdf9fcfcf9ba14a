"""Chooses exact scan or index search by the tenant's size, never by the planner's luck, and finds the candidates."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from memory import metrics
from memory.exceptions import InvalidFilter
from memory.index.recipe import Recipe, recorded
from memory.index.tail import GRAPH_INDEX, has_outgrown
from memory.search.exact_scan import exact_scan
from memory.search.graph_search import graph_candidates
from memory.search.ranking_sql import Statement
from memory.search.search_parameters import SearchParameters
from memory.tenancy.cursors import Send
from memory.tracing import span

logger = logging.getLogger(__name__)

STATE = """
SELECT chunk_count, recipe, expiring,
       coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)), false)
FROM tenants WHERE user_hash = %s
"""

ParametersFor = Callable[[Recipe], SearchParameters]

# The states by which tenants were scanned last, of those searched since this was last full.
_states: dict[str, "TenantState"] = {}
REMEMBERED = 10_000


@dataclass(frozen=True)
class TenantState:
    """What decides how a tenant is searched: its size, how its rows were indexed, whether any of them may expire, and
    whether the graph can be used."""

    chunk_count: int
    recipe: Recipe
    expiring: bool
    graph_is_valid: bool


def best_candidates(send: Send, user_hash: str, parameters_for: ParametersFor) -> list[Any]:
    """The rows of the best candidates, best first; none where nothing is stored.

    `send` is of the open door of their user, whose planner settings are those of `exact_scan`. `parameters_for` makes
    the search parameters for rows that were indexed by a recipe. Most tenants are small, indexed by the same recipe as
    the last time, and still without rows that expire if they had none: so that is tried first, and such a scan finds no
    rows where any of it is not so any more.
    """
    rows = _expected_rows(send, user_hash, parameters_for)
    if rows:
        return rows
    for _ in range(2):  # once more when a reindex or the first row that expires is committed in between
        state = tenant_state(send, user_hash)
        if state is None or not state.chunk_count:
            return []
        rows = candidate_rows(send, parameters_for(state.recipe), state)
        _remember(user_hash, state)
        if rows or state == tenant_state(send, user_hash):
            break
    return rows


def tenant_state(send: Send, user_hash: str) -> TenantState | None:
    """The state of the open door's tenant; None for a user who has stored nothing."""
    row = send(STATE, [GRAPH_INDEX, user_hash]).fetchone()
    return row and TenantState(row[0], recorded(row[1]), *row[2:])


def candidate_rows(send: Send, search: SearchParameters, state: TenantState) -> list[Any]:
    """The rows of the best candidates, best first, by the path of the tenant's size.

    A graph that is missing or being built, and a scope that the graph finds too little of, mean the exact path.
    """
    rows = None
    if has_outgrown(state.chunk_count) and _graph_is_there(state):
        with span("search graph"):
            rows = graph_candidates(send, search, state.chunk_count)
    if rows is None:
        return _counted("exact", _scanned(send, exact_scan(search, expiring=state.expiring)))
    return _counted("graph", rows)


def _expected_rows(send: Send, user_hash: str, parameters_for: ParametersFor) -> list[Any]:
    expected = _states.get(user_hash)
    if expected is None:
        return []
    try:
        search = parameters_for(expected.recipe)
        scan = exact_scan(search, most_rows=settings.MEMORY_EXACT_SCAN_MAX, expiring=expected.expiring)
    except InvalidFilter:  # by the expected recipe; the tenant may have been reindexed since, and its state will tell
        return []
    rows = _scanned(send, scan)
    return _counted("exact", rows) if rows else []


def _scanned(send: Send, scan: Statement) -> list[Any]:
    with span("search exact"):
        return send(*scan).fetchall()


def _counted(path: str, rows: list[Any]) -> list[Any]:
    metrics.CANDIDATE_SEARCHES.labels(path).inc()
    return rows


def _remember(user_hash: str, state: TenantState) -> None:
    if has_outgrown(state.chunk_count):
        _states.pop(user_hash, None)
        return
    if len(_states) >= REMEMBERED:
        _states.clear()
    _states[user_hash] = state


def _graph_is_there(state: TenantState) -> bool:
    if not state.graph_is_valid:
        logger.warning(
            "the vector graph is missing or being built: a large tenant is scanned exactly, which is slow",
            extra={"index": GRAPH_INDEX},
        )
    return state.graph_is_valid
