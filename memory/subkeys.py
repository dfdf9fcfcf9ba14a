"""A tenant's subkeys, one per purpose. Every derivation in the memory goes through here.

They come from the tenant HMAC key, so they change exactly when its rotation moves a tenant's rows to a new user hash.
"""

from typing import Final

from keys.keyring import derive_subkey
from memory import lexical, vector_rotation

FILTER_LABEL: Final = b"sealed-memory metadata filters 1:"


def rotation_subkey(user_hash: str) -> bytes:
    """The 32 bytes that `memory.vector_rotation` turns this tenant's vectors by."""
    return derive_subkey(vector_rotation.SUBKEY_LABEL, user_hash)


def lexical_subkey(user_hash: str) -> bytes:
    """The 32 bytes that `memory.lexical` hashes this tenant's terms with."""
    return derive_subkey(lexical.SUBKEY_LABEL, user_hash)


def filter_subkey(user_hash: str) -> bytes:
    """The 32 bytes that `memory.filters` hashes this tenant's filterable metadata with."""
    return derive_subkey(FILTER_LABEL, user_hash)
