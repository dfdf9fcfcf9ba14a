"""Explains a query: the plans that Postgres chooses and the pages that it touches."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg

from memory.rls import tenant_transaction
from memory.search.candidates import candidate_rows, tenant_state
from memory.search.exact_scan import PINS
from memory.search.search_parameters import Weights, search_parameters
from memory.tenancy.cursors import Parameters, sending

EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "


@dataclass
class Explained:
    """Scans in the order of the plan, pages of 8 KB touched, of those read from outside shared_buffers."""

    scans: list[str] = field(default_factory=list)
    pages: int = 0
    pages_read: int = 0


def explain(user_id: str, *, query: str, vector: np.ndarray, weights: Weights, limit: int) -> Explained:
    """The plans of all statements that find a query's candidates, in the user's door as the product runs them."""
    explained = Explained()
    with tenant_transaction(user_id, planner=PINS) as user_hash, sending() as send:

        def explaining(sql: str, parameters: Parameters) -> psycopg.Cursor[Any]:
            if sql.lstrip().startswith(("SELECT", "WITH")):  # the others set the planner
                ((plans,),) = send(EXPLAIN + sql, parameters).fetchall()
                _note(explained, plans[0]["Plan"])
            return send(sql, parameters)

        state = tenant_state(explaining, user_hash)
        if state is not None:
            search = search_parameters(
                user_hash, recipe=state.recipe, vector=vector, query=query, limit=limit, weights=weights
            )
            candidate_rows(explaining, search, state)
    return explained


def _note(explained: Explained, plan: dict[str, Any]) -> None:
    explained.pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    explained.pages_read += plan["Shared Read Blocks"]
    explained.scans += [scan for scan in _scans(plan) if scan not in explained.scans]


def _scans(plan: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in plan or "Index Name" in plan:
        yield f"{plan['Node Type']} {plan.get('Index Name') or plan['Relation Name']}"
    for child in plan.get("Plans", ()):
        yield from _scans(child)
