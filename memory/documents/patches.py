"""Changes to stored chunks and documents: their form, and the JSON that clients send for them (RFC 7396)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from django.conf import settings

from memory.documents.fields import Embedding, ExactLine, ExactText, ExactTime, Metadata, StrictSerializer
from memory.documents.merge_patch import merge_patch
from memory.documents.shape import MAX_AUTHOR_BYTES, MAX_SOURCE_BYTES, MAX_TITLE_BYTES
from memory.documents.splitting import ChunkAllowance
from memory.exceptions import DocumentTooLarge
from memory.index.context import header
from memory.index.rows import PlainChunk

MERGED_INTO = "Merged into what is there (RFC 7396): null takes a key away, a list replaces a list."


@dataclass(frozen=True)
class Patch:
    """What a client wants changed; everything that it does not name stays.

    `values`: new ones by the names of a PlainChunk's fields. `metadata`: a merge patch; None empties it. `embedding`:
    the client's own for the changed chunk. `text`: a document's, which is split anew.
    """

    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    metadata: Mapping[str, Any] | None = field(default_factory=dict, repr=False)
    embedding: Sequence[float] | np.ndarray | None = field(default=None, repr=False)
    text: str | None = field(default=None, repr=False)

    def applied_to(self, chunk: PlainChunk) -> PlainChunk:
        """The chunk with what this changes. Raises DocumentTooLarge when its metadata would grow too large."""
        merged = merge_patch(chunk.metadata, self.metadata) or {}
        limit = settings.MEMORY_MAX_METADATA_BYTES
        if merged != chunk.metadata and len(json.dumps(merged, ensure_ascii=False).encode("utf-8")) > limit:
            raise DocumentTooLarge("metadata", f"With this, it is larger than {limit} bytes as JSON.")
        return replace(chunk, metadata=merged, **self.values)

    def split_text(self, chunk: PlainChunk) -> tuple[str, ...]:
        """The document's new text in chunks that leave room for a header like this chunk's. Raises DocumentTooLarge."""
        line = header(chunk.title, chunk.author, chunk.occurred_at) if settings.MEMORY_CONTEXT_HEADER else ""
        return tuple(piece.text for piece in ChunkAllowance().split(self.text or "", "text", header=line))


class MemoryPatchInput(StrictSerializer):
    """What changes of one memory; what is not named stays."""

    text = ExactText(limit="MEMORY_MAX_TEXT_BYTES", required=False)
    embedding = Embedding(required=False, help_text="Of the changed text; the service embeds it when left out.")
    metadata = Metadata(required=False, allow_null=True, help_text=MERGED_INTO)
    author = ExactLine(limit=MAX_AUTHOR_BYTES, required=False, allow_blank=True, allow_null=True)
    occurred_at = ExactTime(required=False, allow_null=True, help_text="The time it is about.")


class DocumentPatchInput(StrictSerializer):
    """What changes of a document; what is not named stays."""

    text = ExactText(limit="MEMORY_MAX_TEXT_BYTES", required=False, help_text="Split anew; replaces all chunks' texts.")
    source = ExactLine(limit=MAX_SOURCE_BYTES, required=False, allow_blank=True)  # type: ignore[assignment]
    metadata = Metadata(required=False, allow_null=True, help_text=f"Of every chunk. {MERGED_INTO}")
    title = ExactLine(limit=MAX_TITLE_BYTES, required=False, allow_blank=True, allow_null=True)
    occurred_at = ExactTime(required=False, allow_null=True, help_text="The time it is about, of every chunk.")
    expires_at = ExactTime(required=False, allow_null=True, help_text="From then on it is in no answer.")


def chunk_patch_from(data: Any) -> Patch:
    """The patch of one chunk. Raises DRF's ValidationError."""
    return _patch_from(MemoryPatchInput, data, apart=("metadata", "embedding"))


def document_patch_from(data: Any) -> Patch:
    """The patch of a document. Raises DRF's ValidationError."""
    return _patch_from(DocumentPatchInput, data, apart=("metadata", "text"))


def _patch_from(serializer_class: type[StrictSerializer], data: Any, *, apart: Sequence[str]) -> Patch:
    given = _valid(serializer_class, data)
    shared = {name: given.pop(name) for name in apart if name in given}
    # Null takes away: of a name that leaves an empty one, of a time none.
    cleared = {name: "" for name in ("title", "author") if name in given and given[name] is None}
    return Patch(values=given | cleared, **shared)


def _valid(serializer_class: type[StrictSerializer], data: Any) -> dict[str, Any]:
    serializer = serializer_class(data=data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)
