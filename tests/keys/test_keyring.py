"""Keys that show their ids and nothing else."""

import base64
import copy
import dataclasses
import json
import math
import pickle
import traceback
from typing import Any

import pytest

from keys.exceptions import KeyConfigurationError, UnusableKey
from keys.keyring import _ALPHABETS, Key, derive_subkey, get_keyring, is_well_known, parse_key
from tests.factories import key

HASH = "a" * 64
WELL_KNOWN = [
    b"correct horse battery staple 123",
    b"it's a secret, don't tell: 12/24",
    b"Correct Horse Battery Staple Abc",
    b"My_Very.Secret_Passphrase.2024_x",
    b"0123456789abcdef0123456789abcdee",
    b"0123456789ABCDEFFEDCBA9876543211",
    bytes(range(255, 223, -1)),
    bytes(range(0, 96, 3)),
    bytes((250 - 7 * place) % 256 for place in range(32)),
    b"\x00\xff\x01\xfe" * 8,
    b"\xde\xad\xbe\xef" * 7 + b"\xca\xfe\xba\xbe",
    bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
]


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


def _as_json(shown: Any) -> str:
    return json.dumps(vars(shown) if hasattr(shown, "__dict__") else shown, default=_as_json_value)


def _as_json_value(value: Any) -> Any:
    return vars(value) if hasattr(value, "__dict__") else repr(value)


@pytest.mark.parametrize("show", [vars, dataclasses.asdict, dataclasses.astuple, copy.copy, copy.deepcopy, _as_json])
def test_nothing_that_takes_the_keyring_apart_shows_material(show: Any) -> None:
    ring = get_keyring()
    material = ring.sealing._material
    ring.opening, ring.hashing  # noqa: B018  (what they cache is taken apart too)
    try:
        shown = repr(show(ring))
    except TypeError as refused:
        shown = str(refused)
    assert material.hex() not in shown and repr(material) not in shown and repr(material)[2:-1] not in shown
    with pytest.raises(TypeError):
        vars(ring.sealing)
    with pytest.raises(TypeError):
        dataclasses.asdict(ring.sealing)  # type: ignore[call-overload]


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
        *((base64.b64encode(material).decode(), "well-known") for material in WELL_KNOWN),
    ],
)
def test_unusable_values_are_refused_without_being_repeated(value: str, reason: str) -> None:
    with pytest.raises(UnusableKey, match=reason) as caught:
        parse_key(value)
    assert value not in str(caught.value)


def test_random_keys_are_not_well_known() -> None:
    """The chance that one is refused, computed: each line bounds one rule from above."""
    alphabets = sum((len(alphabet) / 256) ** 32 for alphabet in _ALPHABETS)
    few_bytes = math.comb(256, 8) * (8 / 256) ** 32
    halves, steps, example = 2.0**-128, 2.0**16 / 2.0**256, 2.0**-256
    assert alphabets + few_bytes + halves + steps + example < 2.0**-60
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
