"""A conversation as one document: a message is a chunk, a long one several, so that neighbours lift each other.

Of a message its content is kept, and who said it: its `name`, else its role where that is not the user's. The labels of
the call become metadata of the document.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.conf import settings

from memory.api.mem0.filters import ENTITIES, USER, Narrowing
from memory.api.mem0.shapes import ROLES
from memory.documents.document import Chunk, Document
from memory.documents.fields import safe_name
from memory.documents.splitting import ChunkAllowance
from memory.exceptions import InvalidDocument, InvalidFilter
from memory.index.context import header
from memory.search.conditions import METADATA, Condition, Group

SOURCE: Final = "mem0"
NOT_STORED: Final = "system"
ONLY_LABELS: Final = f"Here they say whose it is: {USER}, {', '.join(ENTITIES)}, each one value."


def document_from(given: Mapping[str, Any], labels: Mapping[str, str], doc_id: str) -> Document:
    """The document of a valid call. Raises InvalidDocument naming the field, DocumentTooLarge for too many chunks."""
    allowance = ChunkAllowance()
    stored = list(_stored(given["messages"]))
    chunks = tuple(chunk for place, message in stored for chunk in _chunks(message, place, allowance, given))
    if not chunks:
        raise InvalidDocument("messages", "There is nothing to store: messages of the system are not.")
    return Document(
        doc_id=doc_id,
        source=SOURCE,
        chunks=chunks,
        metadata={**given.get("metadata", {}), **labels},
        occurred_at=given.get("timestamp"),
        expires_at=given.get("expiration_date"),
    )


def labels_from(narrowing: Narrowing) -> dict[str, str]:
    """The labels of a call that stores. Raises InvalidFilter for a filter that says anything but what a label is."""
    labels: dict[str, str] = {}
    for condition in _equalities(narrowing.filter):
        name = condition.name.removeprefix(METADATA)
        if labels.setdefault(name, condition.value) != condition.value:
            raise InvalidFilter(safe_name(name), "Give this once.")
    return labels


def role_of(author: str) -> tuple[str | None, str | None]:
    """The role and the name of who said a chunk, as far as they are known."""
    if author in ROLES:
        return author, None
    return (None, author) if author else ("user", None)


def _equalities(group: Group | None) -> Iterator[Condition]:
    for member in group.members if group else ():
        if isinstance(member, Group):
            if member.operator != "AND":
                raise InvalidFilter("filters", ONLY_LABELS)
            yield from _equalities(member)
        elif member.operator != "eq" or member.name.removeprefix(METADATA) not in ENTITIES:
            raise InvalidFilter("filters", ONLY_LABELS)
        else:
            yield member


def _stored(messages: list[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, message in enumerate(messages):
        if message["role"] != NOT_STORED:
            yield f"messages[{number}].content", message


def _chunks(
    message: Mapping[str, Any], place: str, allowance: ChunkAllowance, given: Mapping[str, Any]
) -> Iterator[Chunk]:
    author = message.get("name") or ("" if message["role"] == "user" else message["role"])
    line = header("", author, given.get("timestamp")) if settings.MEMORY_CONTEXT_HEADER else ""
    for piece in allowance.split(message["content"], place, header=line):
        yield Chunk(text=piece.text, author=author)
