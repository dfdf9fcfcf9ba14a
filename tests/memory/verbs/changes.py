"""What the tests of changes share."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import numpy as np

from memory.documents.patches import chunk_patch_from, document_patch_from
from memory.listing import StoredChunk, get_chunk, read_document
from memory.verbs.patching import PatchedDocument, patch_chunk, patch_document
from tests.factories import ALICE, vector_of


class Embedder:
    """Stands in for the model, and notes what it was given; `meanwhile` is called first."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.meanwhile = lambda: None

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.meanwhile()
        self.texts += texts
        return np.stack([vector_of(text) for text in texts])


def change(chunk_id: UUID, *, user_id: str = ALICE, **patch: Any) -> StoredChunk:
    """PATCH a chunk as its JSON says."""
    return patch_chunk(user_id=user_id, chunk_id=chunk_id, patch=chunk_patch_from(patch))


def change_document(doc_id: str, patch: Mapping[str, Any]) -> PatchedDocument:
    """PATCH a document of Alice's, as its JSON says."""
    return patch_document(user_id=ALICE, doc_id=doc_id, patch=document_patch_from(patch))


def chunk(chunk_id: UUID, *, user_id: str = ALICE) -> StoredChunk:
    return get_chunk(user_id=user_id, chunk_id=chunk_id)


def document_of(doc_id: str) -> list[StoredChunk]:
    return read_document(user_id=ALICE, doc_id=doc_id, limit=100).chunks
