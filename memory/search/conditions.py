"""Filters as a client writes them, and as SQL over `memory_vectors v`.

    {"source": "chat", "OR": [{"metadata.kind": "note"}, {"NOT": {"occurred_at": {"lt": "2022-06-01T00:00:00Z"}}}]}

A filter is an object; all of its members must hold. `AND` and `OR` take a list of filters, `NOT` takes one. Any other
member names a field, and what it must be: a value, or an object of operators that must all hold. A field or an operator
that does not exist is refused by its name: a filter that is not understood never finds more than was asked for.

    source, doc_id       eq ne in; source also exists
    metadata.<key>       eq ne in exists, for the keys of MEMORY_FILTERABLE_METADATA; a list equals what it holds
    created_at           gt gte lt lte
    occurred_at          the same, and exists; a memory without a time of its own has that of its creation
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.conf import settings

from memory.exceptions import InvalidFilter, safe_name
from memory.index.context import is_storable_time
from memory.index.labels import Scalar, label, presence_label
from memory.index.names import stored_name
from memory.index.recipe import Recipe

FIELD: Final = "filter"
METADATA: Final = "metadata."
MOST_DEPTH: Final = 16
MOST_CONDITIONS: Final = 100
MOST_VALUES: Final = 1_000
# More values than this are looked up in a hash; fewer are compared one by one, which is faster.
MANY: Final = 16

# In the words of the index: row-level security keeps a condition on a COALESCE out of it.
HAPPENED_AT: Final = "CASE WHEN v.occurred_at IS NULL THEN v.created_at ELSE v.occurred_at END"
_COLUMNS: Final = {"source": "v.source", "doc_id": "v.doc_id", "created_at": "v.created_at", "occurred_at": HAPPENED_AT}
_COMPARISONS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_TEXT: Final = frozenset({"eq", "ne", "in"})
_TIME: Final = frozenset(_COMPARISONS)
_OPERATORS: Final = {
    "source": _TEXT | {"exists"},
    "doc_id": _TEXT,
    "created_at": _TIME,
    "occurred_at": _TIME | {"exists"},
}
_METADATA_OPERATORS: Final = _TEXT | {"exists"}
_SCALARS: Final = {False: (str, "a string"), True: (Scalar, "a string, a number, true, false or null")}


@dataclass(frozen=True)
class Condition:
    """A field, an operator and what it is compared with: a scalar, a tuple of them, a time or a boolean."""

    name: str
    operator: str
    value: Any = field(repr=False)


@dataclass(frozen=True)
class Group:
    """`AND`, `OR` or `NOT` of conditions and groups. An empty AND holds, an empty OR does not."""

    operator: str
    members: tuple["Condition | Group", ...]

    def conditions(self) -> Iterator[Condition]:
        """All conditions in it, at any depth."""
        for member in self.members:
            if isinstance(member, Condition):
                yield member
            else:
                yield from member.conditions()


def parse_filter(value: Any) -> Group:
    """A filter out of JSON. Raises InvalidFilter, which names what is not supported and repeats no value."""
    group = _group(value, FIELD, 1)
    refuse_too_large(group)
    return group


def refuse_too_large(group: Group) -> None:
    """Raise InvalidFilter for more conditions or values than a statement is made of."""
    conditions = list(group.conditions())
    values = sum(len(each.value) for each in conditions if each.operator == "in")
    if len(conditions) > MOST_CONDITIONS or values > MOST_VALUES:
        raise InvalidFilter(FIELD, f"This has more than {MOST_CONDITIONS} conditions or {MOST_VALUES} values.")


def _group(value: Any, place: str, depth: int) -> Group:
    if depth > MOST_DEPTH:
        raise InvalidFilter(FIELD, f"This is nested more than {MOST_DEPTH} deep.")
    if not isinstance(value, dict):
        raise InvalidFilter(place, "This must be an object.")
    return Group("AND", tuple(each for name, member in value.items() for each in _member(name, member, place, depth)))


def _member(name: str, value: Any, place: str, depth: int) -> Iterator[Condition | Group]:
    place = f"{place}.{_safe(name)}"
    if name in ("AND", "OR"):
        if not isinstance(value, list) or not value:
            raise InvalidFilter(place, "This must be a list of filters.")
        members = (_group(each, f"{place}[{number}]", depth + 1) for number, each in enumerate(value))
        yield Group(name, tuple(members))
    elif name == "NOT":
        yield Group(name, (_group(value, place, depth + 1),))
    else:
        operators = _operators_of(name, place)
        wanted = value if isinstance(value, dict) else {"eq": value}
        if not wanted:
            raise InvalidFilter(place, "This must have an operator.")
        for operator, operand in wanted.items():
            if operator not in operators:
                raise InvalidFilter(f"{place}.{_safe(operator)}", f"Supported here: {', '.join(sorted(operators))}.")
            yield Condition(name, operator, _operand(name, operator, operand, f"{place}.{operator}"))


def _operators_of(name: str, place: str) -> frozenset[str]:
    if name.startswith(METADATA):
        if name.removeprefix(METADATA) not in settings.MEMORY_FILTERABLE_METADATA:
            raise InvalidFilter(place, "MEMORY_FILTERABLE_METADATA does not name this key.")
        return _METADATA_OPERATORS
    if name not in _OPERATORS:
        raise InvalidFilter(place, f"Supported here: AND, OR, NOT, {', '.join(_OPERATORS)}, metadata.<key>.")
    return _OPERATORS[name]


def _operand(name: str, operator: str, value: Any, place: str) -> Any:
    if operator == "exists":
        return _of_type(value, bool, place, "This must be true or false.")
    if operator in _COMPARISONS:
        return _time(value, place)
    scalar, message = _SCALARS[name.startswith(METADATA)]
    if operator != "in":
        return _of_type(value, scalar, place, f"This must be {message}.")
    if not isinstance(value, list) or not value:
        raise InvalidFilter(place, "This must be a list of values.")
    return tuple(_of_type(each, scalar, place, f"Each value must be {message}.") for each in value)


def _of_type(value: Any, kind: Any, place: str, message: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, str) and not _can_be_stored(value)):
        raise InvalidFilter(place, message)
    return value


def _can_be_stored(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _time(value: Any, place: str) -> datetime:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None or not is_storable_time(time):
        raise InvalidFilter(place, "This must be an ISO 8601 time with an offset, in the years 1 to 9999.")
    return time


def _safe(name: str) -> str:
    prefix = METADATA if name.startswith(METADATA) else ""
    return f"{prefix}{safe_name(name.removeprefix(prefix))}"


# --- SQL --------------------------------------------------------------------------------------------------------------


class FilterSQL:
    """A filter as SQL, and its parameters: values are parameters, always.

    Raises InvalidFilter for what the tenant's rows, made by an older recipe, do not tell yet.
    """

    def __init__(self, group: Group, user_hash: str, recipe: Recipe) -> None:
        self._user_hash, self._recipe = user_hash, recipe
        self.parameters: dict[str, Any] = {}
        self.sql = self._group(group)

    def _group(self, group: Group) -> str:
        members = [self._group(each) if isinstance(each, Group) else self._condition(each) for each in group.members]
        if group.operator == "NOT":
            return f"NOT ({members[0]})"
        neutral = "false" if group.operator == "OR" else "true"
        return f"({f' {group.operator} '.join(members)})" if members else neutral

    def _condition(self, condition: Condition) -> str:
        name, operator, value = condition.name, condition.operator, condition.value
        if name.startswith(METADATA):
            return self._metadata(name.removeprefix(METADATA), operator, value)
        column = _COLUMNS[name]
        if operator == "exists":
            there = "v.occurred_at IS NOT NULL" if name == "occurred_at" else f"{column} <> ''"
            return there if value else f"NOT ({there})"
        if operator in _COMPARISONS:
            return f"{column} {_COMPARISONS[operator]} %({self._bind(value)})b"
        if operator == "in":
            stored = [self._stored(name, each) for each in value]
            return _among(column, f"%({self._bind(stored)})b::text[]", len(stored))
        return f"{column} {'<>' if operator == 'ne' else '='} %({self._bind(self._stored(name, value))})s"

    def _stored(self, column: str, name: str) -> str:
        return stored_name(self._user_hash, column, name, self._recipe.names)

    def _metadata(self, key: str, operator: str, value: Any) -> str:
        if key not in self._recipe.labels or (operator == "exists" and not self._recipe.tells_presence):
            place = f"{FIELD}.{_safe(METADATA + key)}"
            raise InvalidFilter(place, "Older rows do not tell this yet: run `manage.py reindex`.")
        if operator == "in":
            return self._has_any([label(self._user_hash, key, each) for each in value])
        if operator == "exists":
            has = self._has_any([presence_label(self._user_hash, key)])
            return has if value else f"NOT ({has})"
        has = self._has_any([label(self._user_hash, key, value)])
        return f"NOT ({has})" if operator == "ne" else has

    def _has_any(self, labels: list[int]) -> str:
        parameter = f"%({self._bind(labels)})b::int8[]"
        if len(labels) <= MANY:
            return f"v.labels && {parameter}"
        return f"EXISTS (SELECT FROM unnest(v.labels) AS held WHERE {_among('held', parameter, len(labels))})"  # noqa: S608

    def _bind(self, value: Any) -> str:
        name = f"filter{len(self.parameters)}"
        self.parameters[name] = value
        return name


def _among(column: str, array: str, count: int) -> str:
    if count <= MANY:
        return f"{column} = ANY ({array})"
    # IS TRUE keeps the planner from making a join of it, around which the pinned plans would be others.
    return f"({column} IN (SELECT unnest({array}))) IS TRUE"
