"""The rows of a scope in the order of a list, a page at a time, and how many there are: found without any question.

Statements read `memory_vectors`, which repeats what a scope compares, and of `memory_chunks` only how many bytes the
seals of a page have.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from memory.index.recipe import Recipe, configured, recorded
from memory.search.conditions import HAPPENED_AT
from memory.search.filters import Scope
from memory.tenancy.cursors import Send

Found = TypeVar("Found")

TENANT: Final = "SELECT recipe, expiring FROM tenants WHERE user_hash = %(user_hash)s"
STILL: Final = " AND (SELECT recipe FROM tenants WHERE user_hash = %(user_hash)s) = %(recipe)s"
COUNT: Final = "SELECT count(*) FROM memory_vectors v WHERE v.user_hash = %(user_hash)s"
ROWS: Final = f"SELECT v.id, {HAPPENED_AT} AS happened FROM memory_vectors v WHERE v.user_hash = %(user_hash)s"  # noqa: S608
SIZED: Final = (
    "SELECT p.id, p.happened, octet_length(c.text_cipher) + octet_length(c.meta_cipher)"
    " + coalesce(octet_length(c.context_cipher), 0)"
    " FROM ({rows}) p JOIN memory_chunks c ON c.user_hash = %(user_hash)s AND c.id = p.id ORDER BY {order}"
)
# How a list may be ordered, and what comes behind a place in that order.
_BEHIND: Final = (
    " AND {happened} {sign}= %(after_time)b::timestamptz"
    " AND ({happened} {sign} %(after_time)b::timestamptz OR v.id {sign} %(after_id)b)"
)
ORDERS: Final = {
    "-created_at": ("p.id DESC", " AND v.id < %(after_id)b"),
    "occurred_at": ("p.happened, p.id", _BEHIND.format(happened=HAPPENED_AT, sign=">")),
    "-occurred_at": ("p.happened DESC, p.id DESC", _BEHIND.format(happened=HAPPENED_AT, sign="<")),
}
# The chunks' own key finds a document's rows.
OF_DOCUMENT: Final = (
    " AND v.id IN (SELECT d.id FROM memory_chunks d WHERE d.user_hash = %(user_hash)s AND d.doc_id = %(doc_id)s)"
)


class Row(NamedTuple):
    """A row's id, the time it is about, and the bytes of its seals without the embedding's."""

    id: UUID
    happened: datetime
    bytes: int


def rows_in_scope(
    send: Send,
    user_hash: str,
    scope: Scope,
    *,
    order: str,
    limit: int,
    after_id: UUID | None = None,
    after_time: datetime | None = None,
    skip: int = 0,
) -> list[Row]:
    """Up to `limit` rows of the open door's user, in one of ORDERS, behind a place in it or after `skip` rows.

    Raises InvalidFilter for what the tenant's rows do not tell.
    """
    ordered, behind = ORDERS[order]
    places = {"after_id": after_id, "after_time": after_time, "limit": limit, "skip": skip}
    given = {name: value for name, value in places.items() if value is not None}

    def found(conditions: str, parameters: Mapping[str, Any]) -> list[Row]:
        rows = f"{ROWS}{conditions}{behind if after_id else ''} ORDER BY {ordered.replace('p.id', 'v.id')}"
        rows = f"{rows.replace('p.happened', 'happened')} LIMIT %(limit)b OFFSET %(skip)b"
        statement = SIZED.format(rows=rows, order=ordered)
        return [Row(*row) for row in send(statement, {"user_hash": user_hash, **parameters, **given}).fetchall()]

    if _compares_as_indexed(scope):
        return _as_indexed(send, user_hash, scope, found) or []
    return found(*_conditions(scope, user_hash, configured()))


def count_in_scope(send: Send, user_hash: str, scope: Scope) -> int:
    """How many rows of the open door's user are in scope. Raises as `rows_in_scope`."""

    def count(conditions: str, parameters: Mapping[str, Any]) -> int:
        row = send(f"{COUNT}{conditions}", {"user_hash": user_hash, **parameters}).fetchone()
        return int(row[0]) if row else 0

    return _as_indexed(send, user_hash, scope, count, counting=True) or 0


def _as_indexed(
    send: Send,
    user_hash: str,
    scope: Scope,
    look: Callable[[str, Mapping[str, Any]], Found],
    *,
    counting: bool = False,
) -> Found | None:
    """What `look` finds by the conditions of the scope as the tenant's rows were indexed; None without a tenant.

    Nothing is found by a recipe that is not the tenant's any more, and it is looked for again by the new one.
    """
    found, before = None, None
    while not found and (tenant := send(TENANT, {"user_hash": user_hash}).fetchone()) not in (None, before):
        # Where no row ever expires, a count need not read when.
        expiring = tenant[1] or not counting
        conditions, parameters = _conditions(scope, user_hash, recorded(tenant[0]), expiring=expiring)
        found, before = look(f"{conditions}{STILL}", {**parameters, "recipe": tenant[0]}), tenant
    return found


def _compares_as_indexed(scope: Scope) -> bool:
    """Whether any of it is compared as the rows were indexed: metadata by labels, names in the form they have."""
    return bool(scope.metadata) or not (scope.filter is scope.source is scope.doc_id is None)


def _conditions(
    scope: Scope, user_hash: str, recipe: Recipe, *, expiring: bool = True
) -> tuple[str, Mapping[str, Any]]:
    conditions, parameters = scope.conditions(user_hash, recipe, expiring=expiring)
    return (conditions if scope.doc_id is None else f"{conditions}{OF_DOCUMENT}"), parameters
