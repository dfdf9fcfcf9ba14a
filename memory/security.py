"""Seals and opens bytes with AES-256-GCM, and computes the hash that stands for a user.

The blob, readable by any AES-256-GCM implementation:

    nonce (12 bytes) || ciphertext || tag (16 bytes)

Key: MEMORY_ENCRYPTION_KEY, used directly. AAD: the user hash, 64 hex characters in ASCII. A blob that does not open
under exactly this AAD raises `cryptography.exceptions.InvalidTag`.
"""

import os

from cryptography.exceptions import InvalidTag

from keys import nonces
from keys.keyring import Key, get_keyring
from memory.exceptions import InvalidUserId

NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD = NONCE_BYTES + TAG_BYTES
MAX_USER_ID_BYTES = 255


class UserHash(str):
    """A user hash, 64 lower-case hex characters, with the id of the HMAC key that made it.

    That key is also the parent of the tenant's subkeys.
    """

    hmac_key_id: str

    def __new__(cls, value: str, hmac_key_id: str) -> "UserHash":
        user_hash = super().__new__(cls, value)
        user_hash.hmac_key_id = hmac_key_id
        return user_hash

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str.__str__(self), self.hmac_key_id


def hmac_user(user_id: str) -> str:
    """The hash a user's rows carry: HMAC-SHA256 (RFC 2104) of the UTF-8 user id under the current tenant HMAC key.

    Returns 64 lower-case hex characters. Raises InvalidUserId for anything but 1 to 255 bytes of UTF-8 without NUL.
    """
    return _hash_user(get_keyring().hmac_current, user_id)


def user_hashes(user_id: str) -> tuple[UserHash, ...]:
    """Every hash this user may be known under, the one of the current HMAC key first. Raises InvalidUserId."""
    return tuple(UserHash(_hash_user(key, user_id), key.key_id) for key in get_keyring().hashing)


def seal(plaintext: bytes, aad: bytes = b"") -> bytes:
    """Seal with AES-256-GCM (NIST SP 800-38D) under the sealing key and a fresh random 96-bit nonce.

    Returns nonce || ciphertext || tag: 28 bytes longer than the plaintext. Touches no database. Raises
    NonceBudgetSpent once the key is known to have sealed as much as random nonces allow (see `keys.nonces`).
    """
    key = get_keyring().sealing
    nonces.spend(key.key_id)
    nonce = os.urandom(NONCE_BYTES)
    return nonce + key.cipher.encrypt(nonce, plaintext, aad)


def open_sealed(blob: bytes, aad: bytes = b"") -> bytes:
    """Open a blob made by `seal` with the same AAD, under the sealing key or an accepted one.

    Raises InvalidTag for a wrong AAD, an unknown key, any changed bit and any blob shorter than 28 bytes.
    """
    try:
        # Nearly every blob is under the sealing key: trying it first, inline, halves the overhead beside AES itself.
        return get_keyring().sealing.cipher.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], aad)
    except (InvalidTag, ValueError):  # ValueError: a nonce too short to be one
        pass
    return open_with_key(blob, aad)[0]


def open_with_key(blob: bytes, aad: bytes) -> tuple[bytes, Key]:
    """As `open_sealed`, but returns the key as well, which the row's `enc_key_id` should name."""
    for key in get_keyring().opening:
        try:
            return open_under(key, blob, aad), key
        except InvalidTag:
            continue
    raise InvalidTag


def open_under(key: Key, blob: bytes, aad: bytes) -> bytes:
    """Open a blob under one key and no other. Raises InvalidTag."""
    # AESGCM would raise ValueError for a nonce that is too short; callers expect InvalidTag.
    if len(blob) < OVERHEAD:
        raise InvalidTag
    return key.cipher.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], aad)


def aad_for(user_hash: str) -> bytes:
    """The AAD of every seal of a tenant: its 64-hex user hash in ASCII."""
    return user_hash.encode("ascii")


def validate_user_id(user_id: str) -> bytes:
    """The user id's exact UTF-8 bytes. Raises InvalidUserId, which never repeats the id."""
    if not isinstance(user_id, str):
        raise InvalidUserId("A user id is a string.")
    try:
        encoded = user_id.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidUserId("A user id has no lone surrogates.") from None
    if not 1 <= len(encoded) <= MAX_USER_ID_BYTES:
        raise InvalidUserId(f"A user id has 1 to {MAX_USER_ID_BYTES} bytes of UTF-8.")
    if b"\0" in encoded:
        raise InvalidUserId("A user id has no NUL.")
    return encoded


def _hash_user(key: Key, user_id: str) -> str:
    return key.hmac_sha256(validate_user_id(user_id)).hex()
