"""The scope of a query: which rows of a user are searched, by source, document, time of storing and labels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings

from memory.exceptions import InvalidFilter
from memory.index.labels import Scalar, label
from memory.index.recipe import Recipe


@dataclass(frozen=True)
class Scope:
    """What a row must be to be found; empty means every row of the user.

    `created_after` is inclusive, `created_before` exclusive, both aware. `metadata`: filterable keys and the values
    they must equal (or, where a row holds a list, contain). Raises InvalidFilter for any other.
    """

    source: str | None = None
    doc_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.metadata.keys() <= set(settings.MEMORY_FILTERABLE_METADATA):
            raise InvalidFilter("metadata", "has a key that MEMORY_FILTERABLE_METADATA does not name.")
        if not all(isinstance(value, Scalar) for value in self.metadata.values()):
            raise InvalidFilter("metadata", "values must be strings, numbers, booleans or null.")

    @property
    def narrows(self) -> bool:
        """Whether any row could be out of scope."""
        return self != EVERYTHING

    def conditions(self, user_hash: str, recipe: Recipe) -> tuple[str, dict[str, Any]]:
        """SQL to append to a WHERE over `memory_vectors v`, and its parameters. Values are parameters, always.

        Raises InvalidFilter for a metadata key that came into the settings after this tenant was indexed.
        """
        parameters = {
            "source": self.source,
            "doc_id": self.doc_id,
            "created_after": self.created_after,
            "created_before": self.created_before,
            "labels": list(self._labels(user_hash, recipe)) or None,
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        return "".join(_CONDITIONS[name] for name in given), given

    def _labels(self, user_hash: str, recipe: Recipe) -> Iterator[int]:
        for key, value in self.metadata.items():
            if key not in recipe.labels:
                raise InvalidFilter("metadata", "has a key that older rows lack: run `manage.py reindex`.")
            yield label(user_hash, key, value)


EVERYTHING = Scope()

_CONDITIONS = {
    "source": " AND v.source = %(source)s",
    "doc_id": " AND v.doc_id = %(doc_id)s",
    "created_after": " AND v.created_at >= %(created_after)b",
    "created_before": " AND v.created_at < %(created_before)b",
    "labels": " AND v.labels @> %(labels)b::int8[]",
}
