"""Negative vectors: whatever is not exactly a blob of ours, under its key and its AAD, is an InvalidTag."""

import base64
import itertools
import os
import secrets
from collections.abc import Iterator

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, AESSIV, ChaCha20Poly1305

from memory.security import NONCE_BYTES, TAG_BYTES, aad_for, hmac_user, open_sealed, open_with_key, seal
from tests.attacks.tally import tried
from tests.factories import ALICE, BOB, key

AAD = b"a" * 64
PLAIN = b"a text of 32 bytes, neither more"
SIZES = (0, 1, 15, 16, 17, 31, 32, 33, 64)
FIELDS = {"nonce": slice(0, NONCE_BYTES), "ciphertext": slice(NONCE_BYTES, -TAG_BYTES), "tag": slice(-TAG_BYTES, None)}


def assert_refused(kind: str, blob: bytes, aad: bytes = AAD) -> None:
    for opens in (open_sealed, open_with_key):
        with pytest.raises(InvalidTag) as caught:
            opens(blob, aad)
        assert caught.value.args == ()
    tried(f"blobs refused: {kind}")


def test_every_flipped_bit() -> None:
    for size in SIZES:
        blob = seal(b"x" * size, AAD)
        for bit in range(8 * len(blob)):
            changed = bytearray(blob)
            changed[bit // 8] ^= 1 << bit % 8
            assert_refused("a bit flipped", bytes(changed))


@pytest.mark.parametrize("length", range(65))
def test_every_length_that_is_no_whole_blob(length: int) -> None:
    for blob in (bytes(length), b"\xff" * length, secrets.token_bytes(length)):
        assert_refused("0 to 64 bytes that nobody sealed", blob)
    whole = seal(b"x" * 40, AAD)
    assert_refused("cut at its end", whole[:length])
    assert_refused("cut at its beginning", whole[-length:] if length else b"")
    assert_refused("longer at its end", whole + bytes(length + 1))
    assert_refused("longer at its beginning", bytes(length + 1) + whole)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_replaced(field: str) -> None:
    blobs = [seal(PLAIN, AAD) for _ in range(20)]
    for one, other in itertools.permutations(blobs, 2):
        assert_refused("a field of another blob", _with(one, field, other[FIELDS[field]]))
    for one in blobs:
        size = len(one[FIELDS[field]])
        for replacement in (bytes(size), b"\xff" * size, secrets.token_bytes(size), one[FIELDS[field]][::-1]):
            assert_refused("a field replaced", _with(one, field, replacement))
        for length in range(65):
            if length != size:
                assert_refused("a field of another length", _with(one, field, os.urandom(length)))


def test_fields_in_another_order() -> None:
    for size in SIZES:
        nonce, text, tag = (seal(b"x" * size, AAD)[part] for part in FIELDS.values())
        for order in itertools.permutations((nonce, text, tag)):
            if b"".join(order) != nonce + text + tag:
                assert_refused("fields in another order", b"".join(order))


def aads() -> Iterator[bytes]:
    """Every kind of AAD that is not the one."""
    yield from (b"", b"\0", AAD[:-1], AAD + b"a", AAD + b"\0", AAD.upper(), AAD[::-1].replace(b"a", b"b"), b" " + AAD)
    yield from (b"a" * length for length in range(130) if length != 64)
    yield from (AAD[:at] + b"b" + AAD[at + 1 :] for at in range(64))
    yield from (aad_for(hmac_user(user)) for user in (ALICE, BOB))
    yield bytes.fromhex(AAD.decode())


def test_every_other_aad() -> None:
    for size in SIZES:
        blob = seal(b"x" * size, AAD)
        for aad in aads():
            assert_refused("another AAD", blob, aad)
    bare = seal(PLAIN)
    for aad in aads():
        if aad:
            assert_refused("an AAD where there was none", bare, aad)


def test_keys_swapped(settings: object) -> None:
    keys = [key() for _ in range(6)]
    sealed = {}
    for material in keys:
        settings.MEMORY_ENCRYPTION_KEY = material  # type: ignore[attr-defined]
        sealed[material] = [seal(b"x" * size, AAD) for size in SIZES]
    for opener, accepted in itertools.permutations(keys, 2):
        settings.MEMORY_ENCRYPTION_KEY, settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED = opener, [accepted]  # type: ignore[attr-defined]
        for material, blobs in sealed.items():
            for size, blob in zip(SIZES, blobs, strict=True):
                if material in (opener, accepted):
                    assert open_sealed(blob, AAD) == b"x" * size
                else:
                    assert_refused("sealed under a key that is not held", blob)


@pytest.mark.parametrize("cipher", [AESGCM, AESGCMSIV, ChaCha20Poly1305, AESSIV], ids=lambda cipher: cipher.__name__)
def test_other_ciphers_and_keys_of_other_lengths(settings: object, cipher: type) -> None:
    material = secrets.token_bytes(32)
    settings.MEMORY_ENCRYPTION_KEY = base64.b64encode(material).decode()  # type: ignore[attr-defined]
    nonce = os.urandom(NONCE_BYTES)
    for size in (16, 24, 32):
        with_key = material[:size] if cipher in (AESGCM, AESGCMSIV) else material
        if cipher is AESSIV:
            blob = nonce + AESSIV(with_key).encrypt(PLAIN, [AAD, nonce])
        else:
            blob = nonce + cipher(with_key).encrypt(nonce, PLAIN, AAD)
        if cipher is AESGCM and size == 32:
            assert open_sealed(blob, AAD) == PLAIN
        else:
            assert_refused("another cipher, or a part of the key", blob)


def test_the_plaintext_itself_and_what_encodes_a_blob() -> None:
    blob = seal(PLAIN, AAD)
    for encoded in (
        PLAIN,
        PLAIN * 3,
        blob.hex().encode(),
        base64.b64encode(blob),
        b"\\x" + blob.hex().encode(),
        blob * 2,
    ):
        assert_refused("no blob at all", encoded)
    assert_refused("a blob sealed twice", seal(blob, AAD)[NONCE_BYTES:])


def _with(blob: bytes, field: str, value: bytes) -> bytes:
    return b"".join(value if name == field else blob[part] for name, part in FIELDS.items())
