"""Memories for tests that work below the API: vectors come from the text, so no test waits for a model."""

import base64
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from django.conf import settings

from memory.indexing import Chunk, Document, index_documents
from memory.retrieval import Match, query_memories

ALICE = "person:1"
BOB = "person:2"


def key() -> str:
    """A fresh key as the environment gives one."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def text_vector(text: str) -> np.ndarray:
    """A unit vector that belongs to this text: equal texts, equal vectors; others are nearly orthogonal."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    drawn = np.random.default_rng(seed).standard_normal(settings.MEMORY_EMBEDDING_DIM)
    return np.asarray(drawn / np.linalg.norm(drawn), dtype=np.float32)


def remember(
    user_id: str, doc_id: str, *texts: str, source: str = "chat", metadata: Mapping[str, Any] | None = None
) -> list[UUID]:
    """Store a document of these chunks for a user; returns their ids."""
    chunks = tuple(Chunk(text, text_vector(text)) for text in texts)
    document = Document(doc_id=doc_id, source=source, chunks=chunks, metadata=metadata or {})
    return index_documents(user_id=user_id, documents=[document])[0].chunk_ids


def recall(user_id: str, text: str, top_k: int = 5, **filters: Any) -> list[Match]:
    """What a user finds for a text, by its vector."""
    return query_memories(user_id=user_id, query=text, embedding=text_vector(text), top_k=top_k, **filters).matches


def texts(matches: Sequence[Match]) -> list[str]:
    """The texts of matches, in order."""
    return [match.text for match in matches]
