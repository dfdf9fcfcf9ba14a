"""The scope of a query: which rows of a user are searched. Rows that have expired never are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings

from memory.exceptions import InvalidFilter
from memory.index.labels import Scalar, label
from memory.index.names import DOC_ID, SOURCE, stored_name
from memory.index.recipe import Recipe
from memory.search.conditions import HAPPENED_AT, FilterSQL, Group


@dataclass(frozen=True)
class Scope:
    """What a row must be to be found; empty means every row of the user that has not expired.

    `…_after` is inclusive, `…_before` exclusive, all aware; a row that has no time of its own occurred when it was
    created. `metadata`: filterable keys and the values they must equal (or, where a row holds a list, contain).
    `filter`: any other condition. Raises InvalidFilter for what is not filterable.
    """

    source: str | None = None
    doc_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    occurred_after: datetime | None = None
    occurred_before: datetime | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict, repr=False)
    filter: Group | None = None

    def __post_init__(self) -> None:
        if not self.metadata.keys() <= set(settings.MEMORY_FILTERABLE_METADATA):
            raise InvalidFilter("metadata", "has a key that MEMORY_FILTERABLE_METADATA does not name.")
        if not all(isinstance(value, Scalar) for value in self.metadata.values()):
            raise InvalidFilter("metadata", "values must be strings, numbers, booleans or null.")

    @property
    def narrows(self) -> bool:
        """Whether any row that has not expired could be out of scope."""
        return self != EVERYTHING

    def conditions(self, user_hash: str, recipe: Recipe, *, expiring: bool = True) -> tuple[str, dict[str, Any]]:
        """SQL to append to a WHERE over `memory_vectors v`, and its parameters. Values are parameters, always.

        `expiring`: whether any of the rows may have an `expires_at`; without, that column is not read.
        Raises InvalidFilter for a metadata key that came into the settings after this tenant was indexed.
        """
        parameters = {
            "source": _stored(user_hash, SOURCE, self.source, recipe),
            "doc_id": _stored(user_hash, DOC_ID, self.doc_id, recipe),
            "created_after": self.created_after,
            "created_before": self.created_before,
            "occurred_after": self.occurred_after,
            "occurred_before": self.occurred_before,
            "labels": list(self._labels(user_hash, recipe)) or None,
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        sql = "".join(_CONDITIONS[name] for name in given)
        if self.filter is not None:
            made = FilterSQL(self.filter, user_hash, recipe)
            sql, given = f"{sql} AND {made.sql}", given | made.parameters
        return (f"{sql}{UNEXPIRED}" if expiring else sql), given

    def _labels(self, user_hash: str, recipe: Recipe) -> Iterator[int]:
        for key, value in self.metadata.items():
            if key not in recipe.labels:
                raise InvalidFilter("metadata", "has a key that older rows lack: run `manage.py reindex`.")
            yield label(user_hash, key, value)


def _stored(user_hash: str, column: str, name: str | None, recipe: Recipe) -> str | None:
    return None if name is None else stored_name(user_hash, column, name, recipe.names)


EVERYTHING = Scope()

UNEXPIRED = " AND (v.expires_at IS NULL OR v.expires_at > now())"

_CONDITIONS = {
    "source": " AND v.source = %(source)s",
    "doc_id": " AND v.doc_id = %(doc_id)s",
    "created_after": " AND v.created_at >= %(created_after)b",
    "created_before": " AND v.created_at < %(created_before)b",
    "occurred_after": f" AND {HAPPENED_AT} >= %(occurred_after)b",
    "occurred_before": f" AND {HAPPENED_AT} < %(occurred_before)b",
    "labels": " AND v.labels @> %(labels)b::int8[]",
}
