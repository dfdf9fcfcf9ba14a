"""System checks: the variable and the command, never the value."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import run_checks
from django.db.models.functions import Now

from keys.checks import (
    E_EQUAL,
    E_GUESSABLE,
    E_MISSING,
    E_NOT_BASE64_OR_SHORT,
    W_OLD_HMAC_KEY,
    W_OLD_SEALING_KEY,
    check_key_ages,
    check_keys,
)
from keys.held_keys import held_keys
from keys.keyring import KEY_VARIABLES
from keys.models import KeyRecord, Purpose
from keys.status import key_report
from tests.factories import key

SINGLE = ["MEMORY_ENCRYPTION_KEY", "MEMORY_TENANT_HMAC_KEY"]


def test_good_keys_pass() -> None:
    assert check_keys() == []


@pytest.mark.parametrize("variable", SINGLE)
def test_a_missing_key(settings: Any, variable: str) -> None:
    setattr(settings, variable, "")
    (error,) = check_keys()
    assert error.id == E_MISSING and variable in error.msg and "generate_keys" in str(error.hint)


@pytest.mark.parametrize("variable", KEY_VARIABLES)
@pytest.mark.parametrize(
    "value", ["UExBTlRFRA==", "PLANTED not base64", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]
)
def test_short_garbled_and_example_keys(settings: Any, variable: str, value: str) -> None:
    setattr(settings, variable, value if variable in SINGLE else [value])
    (error,) = check_keys()
    assert error.id == E_NOT_BASE64_OR_SHORT and variable in error.msg and "generate_keys" in str(error.hint)
    assert value not in f"{error.msg} {error.hint}"


@pytest.mark.parametrize("variable", KEY_VARIABLES[1:])
def test_one_key_in_two_places(settings: Any, variable: str) -> None:
    value = settings.MEMORY_ENCRYPTION_KEY
    setattr(settings, variable, value if variable in SINGLE else [value])
    (error,) = check_keys()
    assert error.id == E_EQUAL and variable in error.msg and "MEMORY_ENCRYPTION_KEY" in error.msg
    assert value not in f"{error.msg} {error.hint}"


def test_a_key_twice_in_one_list(settings: Any) -> None:
    settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED = [key()] * 2
    assert [error.id for error in check_keys()] == [E_EQUAL]


@pytest.mark.parametrize("variable", KEY_VARIABLES)
def test_a_key_as_the_secret_key(settings: Any, variable: str) -> None:
    settings.SECRET_KEY = value = key()
    setattr(settings, variable, value if variable in SINGLE else [value])
    assert E_EQUAL in {error.id for error in check_keys() if variable in error.msg and "SECRET_KEY" in error.msg}


@pytest.mark.parametrize("weak", ["short", "ab" * 40, f"django-insecure-{'q8Zs1' * 12}"])
def test_a_guessable_secret_key(settings: Any, weak: str) -> None:
    settings.SECRET_KEY = weak
    (error,) = check_keys()
    assert error.id == E_GUESSABLE and "generate_keys" in str(error.hint) and weak not in f"{error}"


def test_they_run_with_manage_check(settings: Any) -> None:
    settings.MEMORY_ENCRYPTION_KEY = ""
    assert E_MISSING in [error.id for error in run_checks()]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "purpose, days, wanted",
    [
        (Purpose.ENCRYPTION, 93, [W_OLD_SEALING_KEY]),
        (Purpose.ENCRYPTION, 91, []),
        (Purpose.HMAC, 366, [W_OLD_HMAC_KEY]),
        (Purpose.HMAC, 364, []),
    ],
)
def test_a_current_key_that_is_overdue_for_rotation(purpose: Purpose, days: int, wanted: list[str]) -> None:
    current = held_keys(purpose).current
    KeyRecord.objects.create(key_id=current, purpose=purpose, first_seen=Now() - timedelta(days=days))
    KeyRecord.objects.create(key_id="11111111", purpose=purpose, first_seen=Now() - timedelta(days=999))
    found = check_key_ages(databases=["default"])
    assert [warning.id for warning in found] == wanted
    assert all(current in warning.msg and f"rotate_{purpose}_key" in str(warning.hint) for warning in found)
    assert check_key_ages(databases=None) == []
    lines = [line for line in key_report().attention if "older than" in line]
    assert len(lines) == len(wanted) and all(current in line for line in lines)
