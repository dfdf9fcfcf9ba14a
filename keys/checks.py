"""System checks of the key variables. A message names the variable and the command, never the value."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import DatabaseError

from keys.exceptions import KeyConfigurationError, UnusableKey
from keys.key_ages import old_keys
from keys.keyring import (
    ENCRYPTION_KEY,
    ENCRYPTION_KEYS_ACCEPTED,
    HMAC_KEY,
    HMAC_KEYS_ACCEPTED,
    KEY_VARIABLES,
    Key,
    get_keyring,
    parse_key,
)
from keys.models import KeyRecord, Purpose
from keys.nonces import WARN_AT

GENERATE = (
    "Run `manage.py generate_keys --env-file .env`, or put what `manage.py generate_keys` prints into a secret store."
)

E_MISSING = "keys.E001"
E_NOT_BASE64_OR_SHORT = "keys.E002"
E_EQUAL = "keys.E003"
E_GUESSABLE = "keys.E004"
W_NONCE_BUDGET = "keys.W001"
W_OLD_SEALING_KEY = "keys.W002"
W_OLD_HMAC_KEY = "keys.W003"


def check_keys(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Refuse a missing, malformed, well-known or repeated key, and a SECRET_KEY that is guessable or such a key."""
    errors: list[CheckMessage] = []
    seen: dict[Key, str] = {}
    for variable in KEY_VARIABLES:
        for value in _values(variable):
            errors.extend(_check_one(variable, value, seen))
    return [*errors, *_check_secret_key(seen)]


def check_nonce_budget(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn when the sealing key has made half of its seals. Asks the database, so only `check --database` runs it."""
    try:
        key_id = get_keyring().sealing.key_id
        used = KeyRecord.objects.filter(key_id=key_id, seals__gte=WARN_AT).exists() if databases else False
    except (KeyConfigurationError, DatabaseError):
        return []  # said by other checks
    if not used:
        return []
    hint = "manage.py generate_keys --next, then manage.py rotate_encryption_key."
    return [Warning(f"Key {key_id} has sealed more than 2^31 values: rotate it soon.", hint=hint, id=W_NONCE_BUDGET)]


def check_key_ages(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn when a current key is overdue for rotation. Asks the database, so only `check --database` runs it."""
    try:
        old = old_keys() if databases else []
    except (KeyConfigurationError, DatabaseError):
        return []  # said by other checks
    ids = {Purpose.ENCRYPTION: W_OLD_SEALING_KEY, Purpose.HMAC: W_OLD_HMAC_KEY}
    return [Warning(f"Key {key}: rotate it soon.", hint=f"{key.advice}.", id=ids[key.purpose]) for key in old]


def _values(variable: str) -> Iterator[str]:
    value = getattr(settings, variable, "")
    if variable in (ENCRYPTION_KEY, HMAC_KEY):
        yield value
    else:
        yield from value


def _check_one(variable: str, value: str, seen: dict[Key, str]) -> Iterator[CheckMessage]:
    if not value:
        yield Error(f"{variable} is not set.", hint=GENERATE, id=E_MISSING)
        return
    try:
        key = parse_key(value)
    except UnusableKey as reason:
        yield Error(f"{variable} {reason}.", hint=GENERATE, id=E_NOT_BASE64_OR_SHORT)
        return
    if key in seen:
        yield Error(f"{variable} holds the same key as {seen[key]}.", hint=_hint_equal(variable), id=E_EQUAL)
    seen.setdefault(key, variable)


def _check_secret_key(seen: dict[Key, str]) -> Iterator[CheckMessage]:
    """Apply Django's security.W009, which it runs for `check --deploy` only, and refuse one of our keys."""
    secret = settings.SECRET_KEY
    for key, variable in seen.items():
        if key.is_in(secret):
            yield Error(f"SECRET_KEY holds the same key as {variable}.", hint=_hint_equal("SECRET_KEY"), id=E_EQUAL)
    if len(secret) < 50 or len(set(secret)) < 5 or secret.startswith("django-insecure-"):
        yield Error("SECRET_KEY is guessable: 50 random characters are wanted.", hint=GENERATE, id=E_GUESSABLE)


def _hint_equal(variable: str) -> str:
    if variable in (ENCRYPTION_KEYS_ACCEPTED, HMAC_KEYS_ACCEPTED):
        return f"Take the key out of {variable}: each key stands in one place."
    return f"Every key has one purpose. {GENERATE}"
