"""What the rotation tests share: tenants with rows under the old key, and the environment after its promotion."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cryptography.exceptions import InvalidTag
from django.conf import settings
from django.db import connections
from django.test import override_settings

from keys.generation import generate_key
from keys.keyring import Key, get_keyring, parse_key
from memory.rls import tenant_transaction
from memory.security import aad_for, hmac_user, open_under
from tests.factories import remember, stored_texts

USERS = ("person:1", "person:2", "person:3")
ROWS_EACH = 7


def text_of(user_id: str, number: int) -> str:
    return f"{user_id} remembers number {number}"


def store(user_id: str, *numbers: int) -> None:
    for number in numbers:
        remember(user_id, f"doc-{number}", text_of(user_id, number), metadata={"n": number})


def store_all() -> None:
    """Three tenants with seven rows each, under the key of the test settings."""
    for user_id in USERS:
        store(user_id, *range(ROWS_EACH))


@contextmanager
def promoted(new: str | None = None, *, accept_old: bool = True) -> Iterator[tuple[Key, Key]]:
    """The environment in which a new key seals and the old one is accepted; yields (old, new)."""
    old, new = settings.MEMORY_ENCRYPTION_KEY, new or generate_key()
    with override_settings(MEMORY_ENCRYPTION_KEY=new, MEMORY_ENCRYPTION_KEYS_ACCEPTED=[old] if accept_old else []):
        yield parse_key(old), get_keyring().sealing


def assert_all_readable() -> None:
    for user_id in USERS:
        assert stored_texts(user_id) == sorted(text_of(user_id, number) for number in range(ROWS_EACH))


def all_blobs() -> list[tuple[str, bytes]]:
    """Every blob of every tenant with its tenant's hash, as a dump has them."""
    with connections["default"].connect_as("backup") as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT user_hash, unnest(ARRAY[text_cipher, meta_cipher, emb_cipher]) FROM memory_chunks"
            " UNION ALL SELECT user_hash, user_cipher FROM tenants"
        )
        return cursor.fetchall()


def opens(key: Key, user_hash: str, blob: bytes) -> bool:
    try:
        open_under(key, blob, aad_for(user_hash))
    except InvalidTag:
        return False
    return True


def assert_only_opens_with(new: Key, old: Key) -> None:
    blobs = all_blobs()
    assert len(blobs) == len(USERS) * (3 * ROWS_EACH + 1)
    assert all(opens(new, user_hash, blob) for user_hash, blob in blobs)
    assert not any(opens(old, user_hash, blob) for user_hash, blob in blobs)
    assert key_ids() == {new.key_id}


def key_ids() -> set[str]:
    """The key ids that rows name."""
    with connections["default"].connect_as("census") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT enc_key_id FROM memory_chunks UNION SELECT enc_key_id FROM tenants")
        return {key_id for (key_id,) in cursor.fetchall()}


def tamper(user_id: str, statement: str, *parameters: Any) -> None:
    """Write into one tenant's rows by SQL, as somebody with the application's rights could."""
    with tenant_transaction(user_id), connections["default"].cursor() as cursor:
        cursor.execute(statement, parameters)
        assert cursor.rowcount == 1


def hash_prefix(user_id: str) -> str:
    return hmac_user(user_id)[:8]
