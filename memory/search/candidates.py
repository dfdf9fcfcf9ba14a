"""Chooses exact scan or index search by the tenant's size, never by the planner's luck, and finds the candidates."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from memory import metrics
from memory.exceptions import InvalidFilter
from memory.index.recipe import Recipe, recorded
from memory.index.tail import GRAPH_INDEX, has_outgrown
from memory.rls import outlives_the_door
from memory.search.exact_scan import PINS, exact_scan
from memory.search.graph_search import graph_candidates
from memory.search.search_parameters import SearchParameters
from memory.tenancy.cursors import Send
from memory.tenancy.planner_settings import planner_settings

logger = logging.getLogger(__name__)

STATE = """
SELECT chunk_count, recipe,
       coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)), false)
FROM tenants WHERE user_hash = %s
"""

ParametersFor = Callable[[Recipe], SearchParameters]

# The recipe by which a tenant was scanned last, of the tenants searched since this was last full.
_recipes: dict[str, Recipe] = {}
REMEMBERED = 10_000


@dataclass(frozen=True)
class TenantState:
    """What decides how a tenant is searched: its size, how its rows were indexed, whether the graph can be used."""

    chunk_count: int
    recipe: Recipe
    graph_is_valid: bool


def best_candidates(send: Send, user_hash: str, parameters_for: ParametersFor) -> list[Any]:
    """The rows of the best candidates, best first, in the open door of their user; none where nothing is stored.

    `parameters_for` makes the search parameters for rows that were indexed by a recipe. Most tenants are scanned
    exactly and by the same recipe as the last time: so that scan travels along with the statement that reads the
    tenant's state, and counts if the state turns out to be what was expected.
    """
    rows: list[Any] = []
    for _ in range(2):  # once more when a reindex of this tenant commits in between
        expected = _recipes.get(user_hash)
        sent = _send_state(send, user_hash)
        scan = None if expected is None else _scan_ahead(send, parameters_for, expected)
        state = _state(sent)
        if state is None or not state.chunk_count:
            return []
        if scan is not None and state.recipe == expected and not has_outgrown(state.chunk_count):
            metrics.CANDIDATE_SEARCHES.labels("exact").inc()
            rows = scan.fetchall()
        else:
            rows = candidate_rows(send, parameters_for(state.recipe), state)
            _remember(user_hash, state)
        if rows or state == tenant_state(send, user_hash):
            break
    return rows


def tenant_state(send: Send, user_hash: str) -> TenantState | None:
    """The state of the open door's tenant; None for a user who has stored nothing."""
    return _state(_send_state(send, user_hash))


def candidate_rows(send: Send, search: SearchParameters, state: TenantState) -> list[Any]:
    """The rows of the best candidates, best first, by the path of the tenant's size.

    A graph that is missing or being built, and a scope that the graph finds too little of, mean the exact path.
    """
    rows = None
    if has_outgrown(state.chunk_count) and _graph_is_there(state):
        rows = graph_candidates(send, search, state.chunk_count)
    metrics.CANDIDATE_SEARCHES.labels("exact" if rows is None else "graph").inc()
    return _scan(send, search).fetchall() if rows is None else rows


def _send_state(send: Send, user_hash: str) -> psycopg.Cursor[Any]:
    return send(STATE, [GRAPH_INDEX, user_hash])


def _state(sent: psycopg.Cursor[Any]) -> TenantState | None:
    row = sent.fetchone()
    return row and TenantState(row[0], recorded(row[1]), row[2])


def _scan(send: Send, search: SearchParameters) -> psycopg.Cursor[Any]:
    statement = exact_scan(search)
    with planner_settings(send, PINS, restore=outlives_the_door()):
        return send(*statement)


def _scan_ahead(send: Send, parameters_for: ParametersFor, expected: Recipe) -> psycopg.Cursor[Any] | None:
    try:
        return _scan(send, parameters_for(expected))
    except InvalidFilter:  # by the expected recipe; the tenant may have been reindexed since, and the state will tell
        return None


def _remember(user_hash: str, state: TenantState) -> None:
    if has_outgrown(state.chunk_count):
        _recipes.pop(user_hash, None)
        return
    if len(_recipes) >= REMEMBERED:
        _recipes.clear()
    _recipes[user_hash] = state.recipe


def _graph_is_there(state: TenantState) -> bool:
    if not state.graph_is_valid:
        logger.warning(
            "the vector graph is missing or being built: a large tenant is scanned exactly, which is slow",
            extra={"index": GRAPH_INDEX},
        )
    return state.graph_is_valid
