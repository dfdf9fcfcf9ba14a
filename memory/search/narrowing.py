"""Rows of an outgrown tenant that a narrow scope leaves, found by an index instead of a scan of all of them.

A graph yields little of a narrow scope: hardly any of the rows that it leads to are in it. So the conditions that every
row of the scope meets are looked up first, one after the other, and one that few rows meet gives them all. They are
still compared with the whole scope where they are scored.

    doc_id                the key of a document's chunks
    metadata              postings of the rows' labels (`memory.index.tail`)
    source, occurred_at   indexes of `memory_vectors`
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from memory.index.labels import label
from memory.index.names import DOC_ID, SOURCE, stored_name
from memory.index.tail import label_term
from memory.search.conditions import HAPPENED_AT, METADATA, Condition, Group
from memory.search.ranking_sql import Statement
from memory.search.search_parameters import SearchParameters
from memory.tenancy.cursors import Send

# Scoring a row that was looked up takes a few microseconds: of more rows, the graph yields enough.
MOST = 10_000

_BY_DOCUMENT = "SELECT id FROM memory_chunks WHERE user_hash = %(user_hash)s AND doc_id = ANY (%(values)b::text[])"
_BY_LABEL = "SELECT id FROM memory_terms WHERE user_hash = %(user_hash)s AND term = ANY (%(values)b::int4[])"
_BY_SOURCE = (
    "SELECT id FROM memory_vectors WHERE user_hash = %(user_hash)s AND outgrown AND source = ANY (%(values)b::text[])"
)
_BY_TIME = (
    f"SELECT v.id FROM memory_vectors v WHERE v.user_hash = %(user_hash)s AND {HAPPENED_AT} >= %(since)b::timestamptz"  # noqa: S608
    f" AND {HAPPENED_AT} <= %(until)b::timestamptz"
)
_EARLIEST, _LATEST = "-infinity", "infinity"


def few_in_scope(send: Send, search: SearchParameters) -> set[UUID] | None:
    """The ids of all rows in the indexes that may be in scope, at most MOST; None where no index tells that few."""
    for sql, parameters in _lookups(search):
        given = {"user_hash": search.user_hash, "most": MOST + 1, **parameters}
        found = send(f"{sql} LIMIT %(most)s", given).fetchall()
        if len(found) <= MOST:
            return {chunk_id for (chunk_id,) in found}
    return None


def _lookups(search: SearchParameters) -> Iterator[Statement]:
    """Statements that each find every row in scope, the ones that mostly find the fewest first."""
    scope, conditions = search.scope, list(_required(search))
    equal: list[tuple[str, list[Any]]] = [(DOC_ID, [scope.doc_id])] if scope.doc_id is not None else []
    equal += [(f"{METADATA}{key}", [value]) for key, value in scope.metadata.items()]
    equal += [(SOURCE, [scope.source])] if scope.source is not None else []
    equal += [(each.name, _values(each)) for each in conditions if each.operator in ("eq", "in")]
    yield from ((_BY_DOCUMENT, _names(search, values, name)) for name, values in equal if name == DOC_ID)
    if search.recipe.tells_presence:
        for name, values in equal:
            if name.startswith(METADATA):
                key = name.removeprefix(METADATA)
                yield _BY_LABEL, {"values": [label_term(label(search.user_hash, key, value)) for value in values]}
    yield from ((_BY_SOURCE, _names(search, values, name)) for name, values in equal if name == SOURCE)
    since, until = _span(search, conditions)
    if since is not None or until is not None:
        yield _BY_TIME, {"since": since or _EARLIEST, "until": until or _LATEST}


def _names(search: SearchParameters, values: list[Any], column: str) -> dict[str, Any]:
    return {"values": [stored_name(search.user_hash, column, value, search.recipe.names) for value in values]}


def _required(search: SearchParameters) -> Iterator[Condition]:
    """The conditions of the filter that every row in scope meets."""
    groups = [search.scope.filter] if search.scope.filter else []
    while groups:
        for member in groups.pop().members:
            if isinstance(member, Condition):
                yield member
            elif member.operator == "AND":
                groups.append(member)
            elif one := _one_of(member):
                yield one


def _one_of(group: Group) -> Condition | None:
    """An OR of the values that one field may have, as a single condition; None for any other group."""
    members = [member.members for member in group.members if isinstance(member, Group)]
    if group.operator != "OR" or len(members) != len(group.members) or any(len(each) != 1 for each in members):
        return None
    conditions = [each for (each,) in members]
    if not all(isinstance(each, Condition) and each.operator in ("eq", "in") for each in conditions):
        return None
    equal = [each for each in conditions if isinstance(each, Condition)]
    if len({each.name for each in equal}) != 1:
        return None
    return Condition(equal[0].name, "in", tuple(value for each in equal for value in _values(each)))


def _values(condition: Condition) -> list[Any]:
    return list(condition.value) if condition.operator == "in" else [condition.value]


def _span(search: SearchParameters, conditions: list[Condition]) -> tuple[datetime | None, datetime | None]:
    """From when to when the rows in scope occurred, both inclusive."""
    times = [(each.operator, each.value) for each in conditions if each.name == "occurred_at"]
    since = [value for operator, value in times if operator in ("gt", "gte")]
    until = [value for operator, value in times if operator in ("lt", "lte")]
    since += [search.scope.occurred_after] if search.scope.occurred_after else []
    until += [search.scope.occurred_before] if search.scope.occurred_before else []
    return max(since, default=None), min(until, default=None)
