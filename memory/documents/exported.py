"""Stored chunks as lines of JSON that lose nothing: what an export writes and an import takes back.

    {"export": {"version": 1, "model": "all-MiniLM-L6-v2", "header": 1}}
    {"doc_id": "a", "stored": [{"id": "…", "chunk_index": 0, "text": "…", "metadata": {}, "created_at": "…", …}, …]}
    {"doc_id": "a", "after": "…", "stored": […]}
    {"export": {"complete": true, "documents": 1, "chunks": 600, "integrity_failures": 0}}

A long document goes on in further lines, each `after` the id of the chunk before. Without its last line an export is
not complete. `model` made the embeddings, if there are any, of texts with that form of a header; a model without a name
is several.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from rest_framework import serializers

from memory.documents.fields import (
    BoundedList,
    Embedding,
    ExactId,
    ExactInteger,
    ExactLine,
    ExactText,
    ExactTime,
    Metadata,
    StrictSerializer,
)
from memory.documents.shape import MAX_DOC_ID_BYTES, MAX_SOURCE_BYTES
from memory.index.recipe import Recipe, configured
from memory.index.rows import PlainChunk

VERSION = 1
MOST_CHUNKS = 500
"""Chunks on a line."""
# Rows that were not stored through the API may be larger than it takes.
MAX_STORED_BYTES = 2**30
MAX_INDEX = 2**31 - 1

_CHUNK_FIELDS = [each.name for each in fields(PlainChunk) if each.name != "doc_id"]


@dataclass(frozen=True)
class ExportMark:
    """The first line of an export, or the last, which says: complete. `fits`: whether its embeddings were made as this
    service makes them."""

    fits: bool = True
    complete: bool = False


@dataclass(frozen=True, eq=False)
class ExportedPart:
    """A line of an export: chunks of a document in order, as they were stored; `after`: the chunk before, on a line
    before. `embeddings`: float32 (d,) each, None where it is to be made."""

    doc_id: str
    chunks: tuple[PlainChunk, ...] = field(repr=False)
    embeddings: tuple[np.ndarray | None, ...] = field(repr=False)
    after: UUID | None = None


# --- Out ---
def line_of(value: Any) -> bytes:
    """A line of NDJSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def first_line(recipe: Recipe) -> bytes:
    return line_of({"export": {"version": VERSION, **_made_by(recipe)}})


def _made_by(recipe: Recipe) -> dict[str, Any]:
    return {"model": recipe.model, "header": recipe.header}


def last_line(documents: int, chunks: int, integrity_failures: int) -> bytes:
    counts = {"documents": documents, "chunks": chunks, "integrity_failures": integrity_failures}
    return line_of({"export": {"complete": True, **counts}})


def part_line(part: ExportedPart) -> bytes:
    after = {"after": str(part.after)} if part.after else {}
    stored = [_chunk(*each) for each in zip(part.chunks, part.embeddings, strict=True)]
    return line_of({"doc_id": part.doc_id, **after, "stored": stored})


def _chunk(chunk: PlainChunk, embedding: np.ndarray | None) -> dict[str, Any]:
    values = {name: _plain(getattr(chunk, name)) for name in _CHUNK_FIELDS}
    if embedding is not None:
        values["embedding"] = embedding.tolist()
    return {name: value for name, value in values.items() if value not in (None, "")}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


# --- In ---
class StoredChunkInput(StrictSerializer):
    id = ExactId()
    chunk_index = ExactInteger(min_value=0, max_value=MAX_INDEX)
    source = ExactLine(limit=MAX_SOURCE_BYTES, required=False, allow_blank=True, default="")  # type: ignore[assignment]
    text = ExactText(limit=MAX_STORED_BYTES)
    metadata = Metadata(required=False, default=dict)
    title = ExactLine(limit=MAX_STORED_BYTES, required=False, allow_blank=True, default="")
    author = ExactLine(limit=MAX_STORED_BYTES, required=False, allow_blank=True, default="")
    occurred_at = ExactTime(required=False)
    expires_at = ExactTime(required=False)
    created_at = ExactTime()
    updated_at = ExactTime()
    embedding = Embedding(required=False)


class PartInput(StrictSerializer):
    doc_id = ExactLine(limit=MAX_DOC_ID_BYTES)
    after = ExactId(required=False)
    stored = BoundedList(child=StoredChunkInput(), limit=MOST_CHUNKS)

    def validate_stored(self, stored: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        places = [chunk["chunk_index"] for chunk in stored]
        if places != sorted(set(places)) or len({chunk["id"] for chunk in stored}) < len(stored):
            raise serializers.ValidationError("These must have ids of their own, and rise by chunk_index.")
        return stored


def part_from(value: dict[str, Any], *, with_embeddings: bool) -> ExportedPart:
    """The part on a line, its embeddings left out on demand. Raises DRF's ValidationError."""
    stored = value["stored"]
    if not with_embeddings and isinstance(stored, list):
        stored = [_without_embedding(chunk) for chunk in stored]
    serializer = PartInput(data={**value, "stored": stored})
    serializer.is_valid(raise_exception=True)
    part = serializer.validated_data
    embeddings = [chunk.pop("embedding", None) for chunk in part["stored"]]
    return ExportedPart(
        doc_id=part["doc_id"],
        after=part.get("after"),
        chunks=tuple(PlainChunk(doc_id=part["doc_id"], **chunk) for chunk in part["stored"]),
        embeddings=tuple(None if each is None else np.asarray(each, dtype=np.float32) for each in embeddings),
    )


def _without_embedding(chunk: Any) -> Any:
    return {name: value for name, value in chunk.items() if name != "embedding"} if isinstance(chunk, dict) else chunk


def mark_from(value: Any) -> ExportMark:
    """The first or last line of an export. Raises DRF's ValidationError for another version's."""
    mark = value["export"]
    if not isinstance(mark, dict) or mark.get("version", VERSION) != VERSION:
        raise serializers.ValidationError({"export": "This is no export of a version that can be read here."})
    made_by = {name: mark[name] for name in ("model", "header") if name in mark}
    return ExportMark(fits=made_by.items() <= _made_by(configured()).items(), complete=mark.get("complete") is True)
