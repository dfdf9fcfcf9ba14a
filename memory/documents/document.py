"""Documents as they are stored: the form, and the rules that a set of them keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from memory.exceptions import InvalidDocument
from memory.sealing.codecs import has_control_characters


@dataclass(frozen=True)
class Chunk:
    """A piece of a document; without `embedding` (float, MEMORY_EMBEDDING_DIM of them) it is embedded here."""

    text: str = field(repr=False)
    embedding: Sequence[float] | np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Document:
    """What a client stores under one doc_id: ordered chunks and metadata that belongs to all of them."""

    doc_id: str
    source: str
    chunks: tuple[Chunk, ...] = field(repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)


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
        for name, value in (("doc_id", document.doc_id), ("source", document.source)):
            if has_control_characters(value):
                raise InvalidDocument(f"{place}.{name}", "This must not contain control characters.")
