"""mem0's filters (v2 and v3) as ours, and the user whom a call is about.

    {"AND": [{"user_id": "alice"}, {"run_id": "*"}, {"created_at": {"gte": "2026-01-01"}}]}

    user_id                     names the user: once, at the top or in an AND; `*` is a person's own memory
    agent_id, app_id, run_id    a value, `*` for any, or eq ne in
    created_at, timestamp       gt gte lt lte; a date, or a time, UTC without an offset (timestamp: also Unix seconds)
    metadata                    an object: a value, or eq ne in exists, of each key that can be filtered by
    AND, OR, NOT                lists of filters; NOT also one

Whatever else a filter holds is refused by its name, and so is what would reach across users. A field that is not named
does not matter: `user_id` alone finds the user's memories of all agents and runs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from memory.exceptions import InvalidFilter, safe_name
from memory.search.conditions import METADATA, MOST_DEPTH, Condition, Group, parse_filter, refuse_too_large

USER: Final = "user_id"
ENTITIES: Final = ("agent_id", "app_id", "run_id")
ANYONE: Final = "*"
TIMES: Final = {"created_at": "created_at", "timestamp": "occurred_at"}
FIELDS: Final = (USER, *ENTITIES, *TIMES, "metadata", "AND", "OR", "NOT")
ONE_USER: Final = "A call is about one user: name it once, at the top or in an AND."


@dataclass(frozen=True)
class Narrowing:
    """What a call is about: the user as the service calls it, None where none was named; and which of its memories."""

    user: str | None
    filter: Group | None = field(default=None, repr=False)


def narrowing_from(given: Mapping[str, Any], *, extra: Mapping[str, Any] | None = None) -> Narrowing:
    """Of a call's `filters`, and of the ids that stand beside them; `extra`: more conditions, as a filter of ours.

    Raises InvalidFilter, which names what is not supported and repeats no value.
    """
    reading = _Reading()
    members = [reading.group(given["filters"], "filters", 1, outermost=True)] if "filters" in given else []
    beside = {name: given[name] for name in (USER, *ENTITIES) if name in given}
    members += [Group("AND", tuple(reading.members(beside, "", 1, outermost=True)))] if beside else []
    members += [parse_filter(dict(extra))] if extra else []
    whole = Group("AND", tuple(members))
    refuse_too_large(whole)
    return Narrowing(reading.user(), whole if any(True for _ in whole.conditions()) else None)


class _Reading:
    def __init__(self) -> None:
        self._users: list[tuple[str, str]] = []

    def user(self) -> str | None:
        """The user that was named. Two places may name it, but not two users."""
        names = {name for _, name in self._users}
        if len(names) > 1:
            raise InvalidFilter(self._users[-1][0], ONE_USER)
        return next(iter(names), None)

    def group(self, value: Any, place: str, depth: int, *, outermost: bool) -> Group:
        if depth > MOST_DEPTH:
            raise InvalidFilter("filters", f"This is nested more than {MOST_DEPTH} deep.")
        if not isinstance(value, dict):
            raise InvalidFilter(place, "This must be an object.")
        return Group("AND", tuple(self.members(value, f"{place}.", depth, outermost=outermost)))

    def members(
        self, value: Mapping[str, Any], prefix: str, depth: int, *, outermost: bool
    ) -> Iterator[Condition | Group]:
        for name, member in value.items():
            place = f"{prefix}{safe_name(name)}"
            if name in ("AND", "OR", "NOT"):
                yield self._combined(name, member, place, depth, outermost)
            elif name == USER:
                self._name_user(member, place, outermost)
            elif name in ENTITIES:
                yield from _entity(name, member, place)
            elif name in TIMES:
                yield from _time(TIMES[name], member, place)
            elif name == "metadata":
                yield from _metadata(member, place)
            else:
                raise InvalidFilter(place, f"Supported here: {', '.join(FIELDS)}.")

    def _combined(self, name: str, value: Any, place: str, depth: int, outermost: bool) -> Group:
        listed = value if isinstance(value, list) else [value] if name == "NOT" else None
        if not listed or (name == "NOT" and len(listed) > 1):
            raise InvalidFilter(place, f"This must be {'one filter' if name == 'NOT' else 'a list of filters'}.")
        inside = outermost and name == "AND"
        members = (
            self.group(each, f"{place}[{number}]" if isinstance(value, list) else place, depth + 1, outermost=inside)
            for number, each in enumerate(listed)
        )
        return Group(name, tuple(members))

    def _name_user(self, value: Any, place: str, outermost: bool) -> None:
        value = value["eq"] if isinstance(value, dict) and set(value) == {"eq"} else value
        if not outermost or isinstance(value, dict | list):
            raise InvalidFilter(place, ONE_USER)
        if not isinstance(value, str):
            raise InvalidFilter(place, "This must be a string.")
        self._users.append((place, value))


def _entity(name: str, value: Any, place: str) -> Iterator[Condition | Group]:
    wanted = value if isinstance(value, dict) else {"eq": value}
    operands = [each for operand in wanted.values() for each in (operand if isinstance(operand, list) else [operand])]
    if not all(isinstance(each, str) for each in operands):
        raise InvalidFilter(place, "This must be a string, or an object of eq, ne and in.")
    if wanted == {"eq": ANYONE}:
        wanted = {"exists": True}
    elif ANYONE in operands or "exists" in wanted:
        raise InvalidFilter(place, "`*` stands alone, for any value.")
    yield from _ours(f"{METADATA}{name}", wanted, place, named=isinstance(value, dict))


def _time(name: str, value: Any, place: str) -> Iterator[Condition | Group]:
    wanted = value if isinstance(value, dict) else {"eq": value}
    times = {operator: _as_time(operand, seconds=name == "occurred_at") for operator, operand in wanted.items()}
    yield from _ours(name, times, place, named=isinstance(value, dict))


def _metadata(value: Any, place: str) -> Iterator[Condition | Group]:
    if not isinstance(value, dict) or not value:
        raise InvalidFilter(place, "This must be an object of keys and values.")
    for key, wanted in value.items():
        where = f"{place}.{safe_name(key)}"
        yield from _ours(f"{METADATA}{key}", wanted, where, named=isinstance(wanted, dict))


def _ours(name: str, wanted: Any, place: str, *, named: bool) -> Iterator[Condition | Group]:
    """The conditions of our filter on one field; what it refuses is said of mem0's place, and of the operator there if
    the caller `named` one."""
    try:
        yield from parse_filter({name: wanted}).members
    except InvalidFilter as refused:
        operator = refused.field.removeprefix(f"filter.{name}").removeprefix(".")
        where = f"{place}.{operator}" if named and operator in wanted else place
        raise InvalidFilter(where, refused.message) from None


def _as_time(value: Any, *, seconds: bool) -> Any:
    """A time as our filters take it; what is none stays as it is, to be refused by them."""
    try:
        if seconds and type(value) in (int, float):
            return datetime.fromtimestamp(value, UTC).isoformat()
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return value
    if time is None:
        return value
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()
