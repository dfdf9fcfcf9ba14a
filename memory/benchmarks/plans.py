"""What Postgres does for a question: the plan it takes and the pages it touches."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg

from memory.asking import Weights, question
from memory.rls import tenant_transaction
from memory.tiers import candidate_rows, tenant_state
from memory.wire import binary_cursor

EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "


@dataclass
class Explained:
    """Scans in the order of the plan, pages of 8 KB touched, of those read from outside shared_buffers."""

    scans: list[str] = field(default_factory=list)
    pages: int = 0
    pages_read: int = 0


class ExplainingCursor(psycopg.Cursor[Any]):
    """Runs every query twice: explained, then as it is."""

    explained: Explained

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        if str(query).lstrip().startswith(("SELECT", "WITH")):
            super().execute(EXPLAIN + query, params, **options)
            ((plans,),) = self.fetchall()
            _note(self.explained, plans[0]["Plan"])
        return super().execute(query, params, **options)


def explain(user_id: str, *, query: str, vector: np.ndarray, weights: Weights, limit: int) -> Explained:
    """The plans of all statements that find a question's candidates, in the user's door as the product asks them."""
    with (
        tenant_transaction(user_id) as user_hash,
        binary_cursor() as prepared,
        ExplainingCursor(prepared.connection) as cursor,
    ):
        cursor.format = psycopg.pq.Format.BINARY
        cursor.explained = Explained()
        state = tenant_state(cursor, user_hash)
        if state is not None:
            asked = question(user_hash, recipe=state.recipe, vector=vector, query=query, limit=limit, weights=weights)
            candidate_rows(cursor, asked, state)
        return cursor.explained


def _note(explained: Explained, plan: dict[str, Any]) -> None:
    explained.pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    explained.pages_read += plan["Shared Read Blocks"]
    explained.scans += [scan for scan in _scans(plan) if scan not in explained.scans]


def _scans(plan: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in plan or "Index Name" in plan:
        yield f"{plan['Node Type']} {plan.get('Index Name') or plan['Relation Name']}"
    for child in plan.get("Plans", ()):
        yield from _scans(child)
