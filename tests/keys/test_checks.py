"""System checks: the variable and the command, never the value."""

from typing import Any

import pytest
from django.core.checks import run_checks

from keys.checks import E_EQUAL, E_MISSING, E_NOT_BASE64_OR_SHORT, check_keys
from keys.keyring import KEY_VARIABLES
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


def test_they_run_with_manage_check(settings: Any) -> None:
    settings.MEMORY_ENCRYPTION_KEY = ""
    assert E_MISSING in [error.id for error in run_checks()]
