"""What the tests of the HMAC rotation share: users under the old key, and the environment after its promotion."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import connections
from django.test import override_settings

from keys import steps
from keys.generation import generate_key
from keys.keyring import Key, get_keyring, parse_key
from memory.models import MemoryChunk, Tenant
from memory.rls import tenant_transaction
from memory.security import user_hashes
from tests.factories import ALICE, BOB, recall, remember, texts

SMALL, LARGE = ALICE, BOB
BATCH = 3
# Of the large one more than two windows of three.
MEMORIES = {SMALL: ["Apollo", "Gemini"], LARGE: [f"memory number {number}" for number in range(8)]}


def store_all() -> None:
    """A user who moves at once and one who is copied, under the current key."""
    for user_id, memories in MEMORIES.items():
        for number, text in enumerate(memories):
            remember(user_id, f"doc-{number}", text, metadata={"n": number})


@contextmanager
def promoted(new: str | None = None, old: str | None = None) -> Iterator[tuple[Key, Key]]:
    """The environment in which a new HMAC key is current and the old one accepted; yields (old, new)."""
    old, new = old or settings.MEMORY_TENANT_HMAC_KEY, new or generate_key()
    with override_settings(MEMORY_TENANT_HMAC_KEY=new, MEMORY_TENANT_HMAC_KEYS_ACCEPTED=[old]):
        yield parse_key(old), parse_key(new)


def facts(user_id: str) -> list[tuple[Any, ...]]:
    """All that a move must keep of a user's chunks, and what they say."""
    with tenant_transaction(user_id):
        return sorted(
            (
                chunk.id, chunk.doc_id, chunk.source, chunk.chunk_index, chunk.created_at, chunk.updated_at,
                chunk.text, tuple(chunk.metadata.items()), tuple(chunk.embedding.tolist()),
            )
            for chunk in MemoryChunk.objects.all()
        )  # fmt: skip


def tenant_facts(user_id: str) -> tuple[Any, ...]:
    with tenant_transaction(user_id):
        tenant = Tenant.objects.get()
        return tenant.user_id, tenant.chunk_count, tenant.created_at, tenant.expiring


def assert_served(user_id: str, memories: Sequence[str] | None = None) -> None:
    """Everything is read and found: by its vector first, which a wrong rotation would not give."""
    memories = memories or MEMORIES[user_id]
    for memory in memories:
        found = recall(user_id, memory, top_k=50)
        assert texts(found)[0] == memory
        assert sorted(texts(found)) == sorted(memories)


def hashes_in_rows() -> set[str]:
    """Every user hash that any row carries, as a dump has them."""
    with connections["default"].connect_as("backup") as conn, conn.cursor() as cursor:
        cursor.execute(
            "SELECT user_hash FROM tenants UNION SELECT user_hash FROM memory_chunks"
            " UNION SELECT user_hash FROM memory_vectors UNION SELECT user_hash FROM memory_terms"
        )
        return {user_hash for (user_hash,) in cursor.fetchall()}


def current_hashes() -> set[str]:
    return {str(user_hashes(user_id)[0]) for user_id in MEMORIES}


def assert_all_moved() -> None:
    assert hashes_in_rows() == current_hashes()
    with connections["default"].connect_as("census") as conn, conn.cursor() as cursor:
        cursor.execute("SELECT DISTINCT hmac_key_id FROM tenants")
        assert cursor.fetchall() == [(get_keyring().hmac_current.key_id,)]


@contextmanager
def observing(observer: Callable[[str], None]) -> Iterator[None]:
    """Within the block, `observer` is told of every step."""
    steps.observer = observer
    try:
        yield
    finally:
        steps.observer = None
