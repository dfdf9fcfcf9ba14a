"""Keys that show their ids and nothing else."""

import copy
import pickle
import traceback
from typing import Any

import pytest

from keys.exceptions import KeyConfigurationError, UnusableKey
from keys.keyring import Key, derive_subkey, get_keyring, is_well_known, parse_key
from tests.factories import key

HASH = "a" * 64


def test_a_key_shows_only_its_id() -> None:
    written = key()
    parsed = parse_key(written)
    shown = f"{parsed!r} {parsed} {get_keyring()!r}"
    assert parsed.key_id in f"{parsed!r}" and len(parsed.key_id) == 8
    assert written not in shown and parsed._material.hex() not in shown and repr(parsed._material) not in shown


@pytest.mark.parametrize("carry", [pickle.dumps, copy.deepcopy, copy.copy])
def test_a_key_is_never_copied_out(carry: Any) -> None:
    with pytest.raises(TypeError, match="never pickled"):
        carry(parse_key(key()))


def test_key_ids_are_stable_and_differ() -> None:
    fixed = Key(bytes(range(1, 33)))
    assert fixed.key_id == "a3abca09"
    assert len({parse_key(key()).key_id for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("not base64!", "is not base64"),
        ("c2hvcnQ=", "decodes to 5 bytes"),
        ("A" * 44, "is not base64|decodes to"),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "well-known"),
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "well-known"),
        ("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "well-known"),
        ("eW91ci0zMi1ieXRlLWVuY3J5cHRpb24ta2V5LWhlcmU=", "well-known"),
    ],
)
def test_unusable_values_are_refused_without_being_repeated(value: str, reason: str) -> None:
    with pytest.raises(UnusableKey, match=reason) as caught:
        parse_key(value)
    assert value not in str(caught.value)


def test_random_keys_are_not_well_known() -> None:
    assert not any(is_well_known(parse_key(key())._material) for _ in range(1000))


@pytest.mark.parametrize("variable", ["MEMORY_ENCRYPTION_KEY", "MEMORY_TENANT_HMAC_KEY"])
@pytest.mark.parametrize("value", ["", "PLANTED-SECRET-VALUE"])
def test_a_bad_variable_is_named_and_its_value_is_not(settings: Any, variable: str, value: str) -> None:
    setattr(settings, variable, value)
    with pytest.raises(KeyConfigurationError, match=f"{variable} .*generate_keys") as caught:
        get_keyring()
    assert "PLANTED" not in "".join(traceback.format_exception(caught.value))


def test_subkeys_differ_by_purpose_tenant_and_parent(settings: Any) -> None:
    first = {derive_subkey(label, user_hash) for label in (b"rotation", b"terms") for user_hash in (HASH, "b" * 64)}
    settings.MEMORY_TENANT_HMAC_KEY = key()
    assert len(first | {derive_subkey(b"rotation", HASH)}) == 5


def test_a_subkey_is_hkdf_sha256_of_the_hmac_key() -> None:
    """RFC 5869 with an empty salt, written out with HMAC alone."""
    import hashlib
    import hmac

    parent = Key(bytes(range(1, 33)))
    extracted = hmac.digest(b"\0" * 32, parent._material, hashlib.sha256)
    assert parent.derive(b"label", HASH) == hmac.digest(extracted, b"label" + HASH.encode() + b"\x01", hashlib.sha256)


def test_the_keyring_follows_the_settings(settings: Any) -> None:
    before = get_keyring()
    settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED = [other := key()]
    settings.MEMORY_TENANT_HMAC_KEYS_ACCEPTED = [another := key()]
    ring = get_keyring()
    assert ring.opening == (before.sealing, parse_key(other))
    assert ring.hashing == (before.hmac_current, parse_key(another))
    assert ring.opens(parse_key(other).key_id) and not before.opens(parse_key(other).key_id)
    assert ring.hashing_key(parse_key(another).key_id) == parse_key(another)
    with pytest.raises(KeyConfigurationError, match="MEMORY_TENANT_HMAC_KEYS_ACCEPTED"):
        before.hashing_key(parse_key(another).key_id)
