"""How a document's name and a source are stored: as the client gave them, or as keyed labels.

With MEMORY_SEALED_NAMES the columns `doc_id` and `source` hold labels, and the names stand in the seal of the chunk's
context. A label is HMAC-SHA256 of column and name under the tenant's subkey, cut to 16 bytes: equal names of one user
and column have equal labels, so keys, groups and filters compare labels as they compared names, and a dump shows
neither a name nor which users share one. Labels begin with U+0001, which no name may hold, so the two are never taken
for one another. A chunk without a source has none in either form.

All rows of a tenant are of one form, which its recipe tells (`memory.index.recipe.Recipe.names`).
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from memory.sealing.codecs import Context
from memory.sealing.subkeys import name_subkey

READABLE: Final = 0
SEALED: Final = 1

DOC_ID: Final = "doc_id"
SOURCE: Final = "source"

_MARK: Final = "\x01"
_BYTES: Final = 16


class StoredName(str):
    """A name as it lies in its column: readable, or a label."""

    __slots__ = ()


def name_label(user_hash: str, column: str, name: str) -> str:
    """The label of a name of this user in a column, 23 characters; empty for an empty name."""
    return _label(name_subkey(user_hash), column, name) if name else ""


def is_label(stored: str) -> bool:
    """Whether what a column holds is a label."""
    return stored.startswith(_MARK)


def stored_name(user_hash: str, column: str, name: str, names: int) -> str:
    """A name in the form `names` that a tenant's recipe tells."""
    return name_label(user_hash, column, name) if names == SEALED else name


def stored_names(user_hash: str, column: str, names: Iterable[str], form: int) -> dict[str, str]:
    """{as it is stored: the name}, for the form of a tenant's recipe."""
    return {stored_name(user_hash, column, name, form): name for name in names}


def in_either_form(user_hash: str, column: str, names: Iterable[str]) -> dict[str, str]:
    """{as it may be stored: the name}, for whoever does not hold the tenant's lock, under which its form changes."""
    wanted = list(names)
    readable = {name: name for name in wanted if not is_label(name)}
    return readable | {name_label(user_hash, column, name): name for name in wanted}


def with_names(context: Context, doc_id: str, source: str, names: int) -> Context:
    """What is sealed of a chunk's context in a form of its names."""
    return context._replace(doc_id=doc_id, source=source) if names == SEALED else context


def names_of(doc_id: str, source: str, context: Context | None) -> tuple[str, str]:
    """A chunk's doc_id and source out of its columns and its opened context."""
    return (context.doc_id, context.source) if context and context.doc_id else (doc_id, source)


@lru_cache(maxsize=4_096)  # the chunks of a document have the same
def _label(subkey: bytes, column: str, name: str) -> str:
    message = f"{column}:{name}".encode("utf-8", "surrogatepass")
    digest = hmac.digest(subkey, message, "sha256")[:_BYTES]
    return _MARK + urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
