"""A process without a key that rows need does not serve."""

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from keys.exceptions import MissingKeys
from keys.generation import generate_key
from keys.keyring import get_keyring
from keys.live_keys import assert_live_keys
from keys.models import KeyRecord, Purpose
from keys.movers import mover_of
from keys.rotation import rotate
from memory.rotation import encryption_key
from memory.rotation.encryption_key import EncryptionKeyMover
from tests.memory.rotation.rotating import promoted, store

pytestmark = pytest.mark.django_db(transaction=True)


def test_with_every_key_it_serves() -> None:
    assert_live_keys()
    store("person:1", 1)
    assert_live_keys()


def test_an_encryption_key_that_rows_need_is_named() -> None:
    store("person:1", 1)
    needed = get_keyring().sealing.key_id
    with (
        override_settings(MEMORY_ENCRYPTION_KEY=generate_key()),
        pytest.raises(MissingKeys, match=f"{needed}: put the key into MEMORY_ENCRYPTION_KEYS_ACCEPTED"),
    ):
        assert_live_keys()


def test_an_hmac_key_that_tenants_need_is_named() -> None:
    store("person:1", 1)
    needed = get_keyring().hmac_current.key_id
    with (
        override_settings(MEMORY_TENANT_HMAC_KEY=generate_key()),
        pytest.raises(MissingKeys, match=f"{needed}: put the key into MEMORY_TENANT_HMAC_KEYS_ACCEPTED"),
    ):
        assert_live_keys()


def test_a_key_that_a_rotation_retired_is_not_asked_for_and_no_table_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    store("person:1", 1)
    new = generate_key()
    with promoted(new):
        assert rotate(EncryptionKeyMover(), started_by="test").verified
    monkeypatch.setattr(encryption_key, "sealed_tables", lambda: pytest.fail("A table was read."))
    with promoted(new, accept_old=False):
        assert_live_keys()


def test_a_coming_key_that_was_taken_back_is_not_asked_for() -> None:
    KeyRecord.objects.create(key_id="11111111", purpose="encryption")
    assert_live_keys()


def test_without_a_census_it_serves_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unconfigured(key_ids: object) -> None:
        raise ImproperlyConfigured("set DATABASE_CENSUS_URL")

    monkeypatch.setattr(mover_of(Purpose.HMAC), "not_among", unconfigured)
    assert_live_keys()
    assert "DATABASE_CENSUS_URL" in caplog.text
    assert settings.MEMORY_ENCRYPTION_KEY not in caplog.text
