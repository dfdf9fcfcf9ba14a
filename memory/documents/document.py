"""Documents as they are stored: the form, and the rules that a set of them keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from memory.exceptions import InvalidDocument
from memory.index.context import refuse_invalid_name, refuse_invalid_time
from memory.index.rows import PlainChunk
from memory.sealing.codecs import has_control_characters


@dataclass(frozen=True)
class Chunk:
    """A piece of a document; without `embedding` (float, MEMORY_EMBEDDING_DIM of them) it is embedded here.

    `author`: who said or wrote it. `occurred_at`: the time it is about, when that is not the document's.
    """

    text: str = field(repr=False)
    embedding: Sequence[float] | np.ndarray | None = field(default=None, repr=False)
    author: str = field(default="", repr=False)
    occurred_at: datetime | None = None


@dataclass(frozen=True)
class Document:
    """What a client stores under one doc_id: ordered chunks, and what belongs to all of them.

    `occurred_at`: the time it is about. From `expires_at` on it is as good as deleted. Both are aware.
    """

    doc_id: str
    source: str
    chunks: tuple[Chunk, ...] = field(repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    title: str = field(default="", repr=False)
    occurred_at: datetime | None = None
    expires_at: datetime | None = None

    def plain(self, index: int, created_at: datetime | None = None) -> PlainChunk:
        """Its chunk of that place, with all that belongs to it."""
        chunk = self.chunks[index]
        return PlainChunk(
            doc_id=self.doc_id,
            source=self.source,
            chunk_index=index,
            text=chunk.text,
            metadata=self.metadata,
            title=self.title,
            author=chunk.author,
            occurred_at=chunk.occurred_at or self.occurred_at,
            expires_at=self.expires_at,
            created_at=created_at,
        )


def refuse_invalid(documents: Sequence[Document]) -> None:
    """Raise InvalidDocument for the first document that cannot be stored, naming its place and field."""
    seen: set[str] = set()
    for number, document in enumerate(documents):
        place = f"documents[{number}]"
        if document.doc_id in seen:
            raise InvalidDocument(f"{place}.doc_id", "This doc_id stands in the list before.")
        seen.add(document.doc_id)
        if not document.doc_id:
            raise InvalidDocument(f"{place}.doc_id", "This must not be empty.")
        if not document.chunks:
            raise InvalidDocument(f"{place}.chunks", "This must not be empty.")
        if not isinstance(document.metadata, dict):
            raise InvalidDocument(f"{place}.metadata", "This must be a JSON object.")
        for index, chunk in enumerate(document.chunks):
            if not chunk.text.strip():
                raise InvalidDocument(f"{place}.chunks[{index}].text", "This must not be empty.")
            refuse_invalid_name(chunk.author, f"{place}.chunks[{index}].author")
            refuse_invalid_time(chunk.occurred_at, f"{place}.chunks[{index}].occurred_at")
        for name, value in (("doc_id", document.doc_id), ("source", document.source)):
            if has_control_characters(value):
                raise InvalidDocument(f"{place}.{name}", "This must not contain control characters.")
        refuse_invalid_name(document.title, f"{place}.title")
        refuse_invalid_time(document.occurred_at, f"{place}.occurred_at")
        refuse_invalid_time(document.expires_at, f"{place}.expires_at")
