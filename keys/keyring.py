"""The keyring: which key seals, which keys also open, and the subkeys that come from them.

Two variables hold one key each, base64 of 32 random bytes:

    MEMORY_ENCRYPTION_KEY     seals rows (AES-256-GCM)
    MEMORY_TENANT_HMAC_KEY    turns user ids into user hashes (HMAC-SHA256) and is the parent of every tenant subkey

Each has a companion `…_ACCEPTED`, a comma-separated list of keys that are accepted besides: a new key before it becomes
the current one, an old key after that. The order in the list has no meaning.
"""

import base64
import binascii
import hmac
import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

from keys.exceptions import KeyConfigurationError, UnusableKey

KEY_BYTES = 32
KEY_ID_LENGTH = 8
_KEY_ID_LABEL = b"sealed-memory/key-id/v1"

ENCRYPTION_KEY = "MEMORY_ENCRYPTION_KEY"
ENCRYPTION_KEYS_ACCEPTED = "MEMORY_ENCRYPTION_KEYS_ACCEPTED"
HMAC_KEY = "MEMORY_TENANT_HMAC_KEY"
HMAC_KEYS_ACCEPTED = "MEMORY_TENANT_HMAC_KEYS_ACCEPTED"
KEY_VARIABLES = (ENCRYPTION_KEY, ENCRYPTION_KEYS_ACCEPTED, HMAC_KEY, HMAC_KEYS_ACCEPTED)


class Key:
    """32 bytes of key material that are never shown: `repr` and `str` give the key id, and `vars()` fails.

    `key_id` is the first 8 hex of HMAC-SHA256(key, fixed label): it names the key and reveals nothing of it. `cipher`
    is AES-256-GCM under this key, used directly (no derivation), as the blob format says.
    """

    __slots__ = ("_material", "cipher", "key_id")

    def __init__(self, material: bytes) -> None:
        self._material = material
        self.key_id = hmac.digest(material, _KEY_ID_LABEL, "sha256").hex()[:KEY_ID_LENGTH]
        self.cipher = AESGCM(material)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and hmac.compare_digest(self._material, other._material)

    def __hash__(self) -> int:
        return hash(self.key_id)

    def is_in(self, text: str) -> bool:
        """Whether a text is this key in base64, or has it as bytes."""
        return text.encode() == self._material or _decoded(text) == self._material

    def hmac_sha256(self, message: bytes) -> bytes:
        """HMAC-SHA256 of `message` under this key: 32 bytes."""
        return hmac.digest(self._material, message, "sha256")

    def derive(self, label: bytes, context: str) -> bytes:
        """A 32-byte subkey: HKDF-SHA256 (RFC 5869), no salt, info = label || context in ASCII."""
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=label + context.encode("ascii")).derive(
            self._material
        )

    def __repr__(self) -> str:
        return f"<Key {self.key_id}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("A key is never pickled or copied out of its process.")


@dataclass(frozen=True)
class Keyring:
    """Every key this process holds. Its `repr` shows key ids only."""

    sealing: Key
    accepted: tuple[Key, ...]
    hmac_current: Key
    hmac_accepted: tuple[Key, ...]

    @cached_property
    def opening(self) -> tuple[Key, ...]:
        """Keys that open seals, in the order they are tried: the sealing key first."""
        return (self.sealing, *self.accepted)

    @cached_property
    def hashing(self) -> tuple[Key, ...]:
        """HMAC keys that a user's hash may have been made with, the current one first."""
        return (self.hmac_current, *self.hmac_accepted)

    def opens(self, key_id: str) -> bool:
        """Whether a row that names `key_id` can be opened by a key this process holds."""
        return any(key.key_id == key_id for key in self.opening)

    def hashing_key(self, key_id: str) -> Key:
        """The HMAC key with that id. Raises KeyConfigurationError when this process lacks it."""
        for key in self.hashing:
            if key.key_id == key_id:
                return key
        raise KeyConfigurationError(
            f"No HMAC key with id {key_id} in {HMAC_KEY} or {HMAC_KEYS_ACCEPTED}: put it back into the latter."
        )


def parse_key(value: str) -> Key:
    """Read one base64 key. Raises UnusableKey, which says what is wrong and never repeats the value."""
    if (material := _decoded(value)) is None:
        raise UnusableKey("is not base64")
    if len(material) != KEY_BYTES:
        raise UnusableKey(f"decodes to {len(material)} bytes, not {KEY_BYTES}")
    if is_well_known(material):
        raise UnusableKey("is a well-known example value")
    return Key(material)


def _decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None


def is_well_known(material: bytes) -> bool:
    """Whether 32 bytes are no key but a text, a pattern or the example of a standard.

    Texts: hex digits, lower-case phrases with any punctuation, and letters and digits in both cases with blanks and
    hyphens, or with dots and underscores. Patterns: at most 8 different bytes, two equal halves, equal steps.
    """
    is_text = any(set(material) <= alphabet for alphabet in _ALPHABETS)
    return is_text or _is_pattern(material) or material == NIST_EXAMPLE


def _is_pattern(material: bytes) -> bool:
    steps = {(after - before) % 256 for before, after in pairwise(material)}
    return len(set(material)) <= 8 or material[:16] == material[16:] or len(steps) == 1


# AES-256 in NIST SP 800-38A, appendix F, and in the test suites of most libraries.
NIST_EXAMPLE = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
_ALPHABETS = tuple(
    frozenset(alphabet.encode("ascii"))
    for alphabet in (
        string.ascii_lowercase + string.digits + string.punctuation + " ",
        string.ascii_letters + string.digits + " -",
        string.ascii_letters + string.digits + "._",
    )
)


@lru_cache(maxsize=1)
def get_keyring() -> Keyring:
    """The process's keyring, read from the settings at first use. Raises KeyConfigurationError."""
    return Keyring(
        sealing=_one(ENCRYPTION_KEY),
        accepted=tuple(_many(ENCRYPTION_KEYS_ACCEPTED)),
        hmac_current=_one(HMAC_KEY),
        hmac_accepted=tuple(_many(HMAC_KEYS_ACCEPTED)),
    )


@lru_cache(maxsize=4096)
def derive_subkey(label: bytes, user_hash: str, hmac_key_id: str = "") -> bytes:
    """The tenant's 32-byte subkey for one purpose, from the HMAC key that made its user hash.

    Without `hmac_key_id` the current key is used. Cached, because every index and query needs it; the cache is cleared
    with the keyring when a key setting changes. Raises KeyConfigurationError when this process lacks the key.
    """
    keyring = get_keyring()
    key = keyring.hashing_key(hmac_key_id) if hmac_key_id else keyring.hmac_current
    return key.derive(label, user_hash)


def _one(variable: str) -> Key:
    value = getattr(settings, variable, "")
    if not value:
        raise KeyConfigurationError(f"{variable} is not set. Run `manage.py generate_keys --env-file .env`.")
    return _parse(variable, value)


def _many(variable: str) -> Iterator[Key]:
    for value in getattr(settings, variable, ()):
        yield _parse(variable, value)


def _parse(variable: str, value: str) -> Key:
    try:
        return parse_key(value)
    except UnusableKey as reason:
        raise KeyConfigurationError(f"{variable} {reason}. Run `manage.py generate_keys`.") from None


@receiver(setting_changed)
def _forget_keys(*, setting: str, **kwargs: Any) -> None:
    if setting in KEY_VARIABLES:
        get_keyring.cache_clear()
        derive_subkey.cache_clear()
