"""Derives a tenant's subkeys, one per purpose. Every derivation in the memory goes through here.

They are derived from the HMAC key that made the tenant's user hash. So they change when a rotation of that key moves
the tenant to a new hash, and not before.
"""

from typing import Final

from keys.exceptions import KeyConfigurationError
from keys.keyring import derive_subkey, get_keyring
from memory.security import UserHash

ROTATION_LABEL: Final = b"sealed-memory vector rotation 1:"
LEXICAL_LABEL: Final = b"sealed-memory lexical terms 1:"
FILTER_LABEL: Final = b"sealed-memory metadata filters 1:"
NAME_LABEL: Final = b"sealed-memory names 1:"

IDEMPOTENCY_LABEL: Final = b"sealed-memory idempotency keys 1:"
# Of the MACs of memory_chunks and memory_vectors, of what a row counts for in the set of rows, and of the set's digest.
CHUNK_MAC_LABEL: Final = b"sealed-memory chunk macs 1:"
VECTOR_MAC_LABEL: Final = b"sealed-memory vector macs 1:"
ELEMENT_LABEL: Final = b"sealed-memory row set elements 1:"
ROW_SET_LABEL: Final = b"sealed-memory row set digest 1:"


def rotation_subkey(user_hash: str) -> bytes:
    """The 32 bytes from which `memory.index.vector_rotation` derives this tenant's rotation."""
    return _subkey(ROTATION_LABEL, user_hash)


def lexical_subkey(user_hash: str) -> bytes:
    """The 32 bytes that `memory.index.bm25` hashes this tenant's terms with."""
    return _subkey(LEXICAL_LABEL, user_hash)


def filter_subkey(user_hash: str) -> bytes:
    """The 32 bytes that `memory.index.labels` hashes this tenant's filterable metadata with."""
    return _subkey(FILTER_LABEL, user_hash)


def name_subkey(user_hash: str) -> bytes:
    """The 32 bytes that `memory.index.names` hashes this tenant's names of documents and sources with."""
    return _subkey(NAME_LABEL, user_hash)


def idempotency_subkey(user_hash: str) -> bytes:
    """The 32 bytes that `memory.operations.idempotency` hashes this tenant's idempotency keys with."""
    return _subkey(IDEMPOTENCY_LABEL, user_hash)


def row_subkeys(user_hash: str) -> tuple[bytes, bytes, bytes]:
    """Three times 32 bytes, with which `memory.sealing.row_macs` makes the MACs of this tenant's rows."""
    return (
        _subkey(CHUNK_MAC_LABEL, user_hash),
        _subkey(VECTOR_MAC_LABEL, user_hash),
        _subkey(ELEMENT_LABEL, user_hash),
    )


def row_set_subkey(user_hash: str) -> bytes:
    """The 32 bytes with which `memory.tenancy.row_set` hides and authenticates the digest of this tenant's rows."""
    return _subkey(ROW_SET_LABEL, user_hash)


def _subkey(label: bytes, user_hash: str) -> bytes:
    key_id = user_hash.hmac_key_id if isinstance(user_hash, UserHash) else ""
    # With several keys, a wrong guess would write vectors and terms that no query finds.
    if not key_id and get_keyring().hmac_accepted:
        raise KeyConfigurationError("Several HMAC keys are accepted and the hash does not say which one made it.")
    return derive_subkey(label, user_hash, key_id)
