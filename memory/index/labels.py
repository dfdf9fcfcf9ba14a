"""Keyed labels: what a filter compares in place of sealed metadata.

Metadata stays sealed. For the keys that `MEMORY_FILTERABLE_METADATA` names, a row carries keyed hashes of (key, value),
and a filter compares hashes: the database learns which rows of one tenant share a value, never a key or a value.
"""

import hmac
import json
from collections.abc import Mapping
from typing import Any

from memory.index.recipe import Recipe
from memory.sealing.subkeys import filter_subkey

Scalar = str | int | float | bool | None


def labels(user_hash: str, metadata: Mapping[str, Any], recipe: Recipe) -> list[int]:
    """The keyed hashes a row carries, sorted: one per filterable key, one per its value, or per member of a list."""
    found: set[int] = set()
    for key in recipe.labels:
        if key in metadata:
            value = metadata[key]
            values = value if isinstance(value, list) else [value]
            found.update(label(user_hash, key, each) for each in values if isinstance(each, Scalar))
            if recipe.tells_presence:
                found.add(presence_label(user_hash, key))
    return sorted(found)


def label(user_hash: str, key: str, value: Scalar) -> int:
    """HMAC-SHA256 of the JSON pair under the tenant's subkey, its first 8 bytes as a signed integer.

    1 and 1.0 are one value, as they are to JSON; true and 1 are two.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _keyed(user_hash, [key, value])


def presence_label(user_hash: str, key: str) -> int:
    """The same of the key alone: carried by every row that has it, whatever its value."""
    return _keyed(user_hash, [key])


def _keyed(user_hash: str, members: list[Any]) -> int:
    message = json.dumps(members, separators=(",", ":")).encode("ascii")
    return int.from_bytes(hmac.digest(filter_subkey(user_hash), message, "sha256")[:8], "big", signed=True)
