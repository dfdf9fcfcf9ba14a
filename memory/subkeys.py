"""A tenant's subkeys, one per purpose. Every derivation in the memory goes through here.

They come from the HMAC key that made the user hash, so they change exactly when its rotation moves a tenant's rows.
"""

from typing import Final

from keys.keyring import derive_subkey
from memory import lexical, vector_rotation

FILTER_LABEL: Final = b"sealed-memory metadata filters 1:"


def rotation_subkey(user_hash: str) -> bytes:
    """The 32 bytes that `memory.vector_rotation` turns this tenant's vectors by."""
    return _subkey(vector_rotation.SUBKEY_LABEL, user_hash)


def lexical_subkey(user_hash: str) -> bytes:
    """The 32 bytes that `memory.lexical` hashes this tenant's terms with."""
    return _subkey(lexical.SUBKEY_LABEL, user_hash)


def filter_subkey(user_hash: str) -> bytes:
    """The 32 bytes that `memory.scope` hashes this tenant's filterable metadata with."""
    return _subkey(FILTER_LABEL, user_hash)


def _subkey(label: bytes, user_hash: str) -> bytes:
    # A UserHash names the HMAC key that made it; any other string is taken to be the current key's.
    return derive_subkey(label, user_hash, getattr(user_hash, "hmac_key_id", ""))
