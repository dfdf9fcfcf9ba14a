"""What tests are made of, as plain functions."""

import base64
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import numpy as np
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.test import Client

from memory.access.tokens import ACT_FOR_USERS, AccessToken, ServiceAccount
from memory.documents.document import Chunk, Document
from memory.indexing import index_documents
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.search.filters import Scope
from memory.search.retrieval import Match, query_memories

API = "/api/v1"
ALICE = "person:1"
BOB = "person:2"
DIM = 384


def make_user(name: str = "alice", **fields: Any) -> User:
    return User.objects.create_user(username=name, **fields)


def make_token(user: User, expires_in: timedelta | None = timedelta(days=1)) -> str:
    """The secret of a new token."""
    return AccessToken.objects.issue(user=user, expires_in=expires_in)[1]


def make_service(namespace: str = "acme", *, acts_for_users: bool = True) -> str:
    """The secret of a token of a new service."""
    user = make_user(f"service-{namespace}")
    ServiceAccount.objects.create(user=user, namespace=namespace)
    if acts_for_users:
        user.user_permissions.add(Permission.objects.get(codename=ACT_FOR_USERS))
    return make_token(user)


def api_client(secret: str | None = None, *, user: str | None = None) -> Client:
    """A client that sends a token, and the header that names a service's user (as UTF-8, the way a server sees it)."""
    headers = {}
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    if user is not None:
        headers["X-Memory-User"] = user.encode().decode("latin-1")
    return Client(headers=headers, raise_request_exception=False)


def person_client(name: str = "alice") -> Client:
    """A client with the token of a new account."""
    return api_client(make_token(make_user(name)))


def vector(*hot: int) -> list[float]:
    """An embedding that points along the given dimensions."""
    return [1.0 if place in (hot or (0,)) else 0.0 for place in range(settings.MEMORY_EMBEDDING_DIM)]


def index(client: Client, text: str = "a memory", *, embedding: list[float] | None = None, **fields: Any) -> Any:
    """Store one document over HTTP; returns what the API said of it."""
    body = {"text": text, "embedding": embedding or vector(), **fields}
    response = client.post(f"{API}/memories/index", body, content_type="application/json")
    assert response.status_code == 200, response.content
    return response.json()["documents"][0]


def key() -> str:
    """A fresh key as the environment gives one."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def vector_of(text: str, dim: int = DIM) -> np.ndarray:
    """A unit vector that belongs to a text, so that no test waits for a model; other texts are nearly orthogonal."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    drawn = np.random.default_rng(seed).standard_normal(dim)
    return np.asarray(drawn / np.linalg.norm(drawn), dtype=np.float32)


def document(doc_id: str, *texts: str, source: str = "chat", metadata: Mapping[str, Any] | None = None) -> Document:
    """A document of these chunks, with vectors."""
    chunks = tuple(Chunk(text, vector_of(text)) for text in texts)
    return Document(doc_id=doc_id, source=source, chunks=chunks, metadata=metadata or {})


def remember(user_id: str, doc_id: str, *texts: str, **fields: Any) -> list[UUID]:
    """Store a document for a user; returns its chunk ids."""
    (indexed,) = index_documents(user_id=user_id, documents=[document(doc_id, *texts, **fields)])
    return indexed.chunk_ids


def recall(user_id: str, text: str, top_k: int = 5, **scope: Any) -> list[Match]:
    """What a user finds for a text, by its vector."""
    return query_memories(
        user_id=user_id, query=text, embedding=vector_of(text), top_k=top_k, scope=Scope(**scope)
    ).matches


def texts(matches: Sequence[Match]) -> list[str]:
    """The texts of matches, in order."""
    return [match.text for match in matches]


def stored_texts(user_id: str) -> list[str]:
    """The texts of all a user's chunks, sorted."""
    with tenant_transaction(user_id):
        return sorted(chunk.text for chunk in MemoryChunk.objects.all())


WORDS = ["apollo", "launch", "budget", "meeting", "garden", "tomato", "river", "violin", "passport", "invoice"]


def drawn_documents(rng: np.random.Generator, sizes: Sequence[int]) -> list[list[tuple[str, np.ndarray]]]:
    """Documents of the given numbers of chunks, as pairs of a text of WORDS and an embedding."""
    return [
        [(" ".join(rng.choice(WORDS, rng.integers(3, 12))), rng.normal(size=DIM)) for _ in range(size)]
        for size in sizes
    ]


def store_drawn(user_id: str, documents: Sequence[Sequence[tuple[str, np.ndarray]]], **fields: Any) -> list[UUID]:
    """Store drawn documents as doc-0, doc-1, …; returns the ids of their chunks in order."""
    made = [
        Document(doc_id=f"doc-{number}", chunks=tuple(Chunk(*pair) for pair in pairs), **{"source": "", **fields})
        for number, pairs in enumerate(documents)
    ]
    return [chunk_id for stored in index_documents(user_id=user_id, documents=made) for chunk_id in stored.chunk_ids]
