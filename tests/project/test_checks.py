"""The system checks of the database's settings."""

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from database.embedded_postgres import binaries
from project import checks
from project.startup import refuse_failed_checks


def ids(messages: list[Any]) -> list[str]:
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


def test_the_settings_of_this_run_pass() -> None:
    assert ids(checks.check_database_urls()) == ids(checks.check_databases()) == []


def test_a_database_url_alone_misses_the_census(settings: Settings) -> None:
    settings.DATABASE_ROLES = {"app": settings.DATABASE_ROLES["app"]}
    assert ids(checks.check_database_urls()) == ["project.E001"]


def test_a_server_without_the_owner_and_the_backup_passes(settings: Settings) -> None:
    settings.DATABASE_ROLES = {role: settings.DATABASE_ROLES[role] for role in ("app", "census")}
    assert ids(checks.check_database_urls()) == []


def test_two_roles_may_not_share_a_user(settings: Settings) -> None:
    settings.DATABASE_ROLES = settings.DATABASE_ROLES | {"owner": settings.DATABASE_ROLES["app"]}
    assert ids(checks.check_database_urls()) == ["project.E002"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"ATOMIC_REQUESTS": True}, "project.E003"),
        ({"TEST": {"MIRROR": "default"}}, "project.E004"),
        ({"ENGINE": "django.db.backends.postgresql"}, "project.E005"),
    ],
)
def test_a_dangerous_database_setting_is_refused(setting: dict[str, Any], expected: str) -> None:
    assert ids(list(checks.database_errors("default", {"ENGINE": "database", **setting}))) == [expected]


def test_no_database_at_all_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DATABASE_EMBEDDED = True
    monkeypatch.setattr(binaries, "installed", lambda: None)
    assert ids(checks.check_embedded_postgres()) == ["project.E006"]


def test_redis_without_its_package_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(checks.check_cache()) == []
    settings.CACHE_URL = "redis://cache.internal/0"
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    assert ids(checks.check_cache()) == ["project.E012"]
    monkeypatch.setattr(checks, "find_spec", lambda name: object())
    assert ids(checks.check_cache()) == []


@pytest.mark.parametrize("name", checks.RANGES)
def test_numbers_out_of_range(settings: Settings, name: str) -> None:
    assert ids(checks.check_ranges()) == []
    for wrong in (checks.RANGES[name][0] - 1, checks.RANGES[name][1] + 1):
        setattr(settings, name, wrong)
        assert "project.E013" in ids(checks.check_ranges())


def test_a_pool_is_larger_than_the_threads_that_use_it(settings: Settings) -> None:
    settings.WEB_THREADS, settings.DATABASE_POOL_MAX_SIZE = 9, 10
    assert ids(checks.check_ranges()) == []
    settings.WEB_THREADS = 10
    assert ids(checks.check_ranges()) == ["project.E013"]


def test_serving_refuses_what_check_refuses(settings: Settings) -> None:
    refuse_failed_checks()
    settings.WEB_THREADS = 0
    settings.MEMORY_MAX_BATCH = 0
    with pytest.raises(ImproperlyConfigured, match="memory.E013: MEMORY_MAX_BATCH") as refused:
        refuse_failed_checks()
    assert "project.E013: WEB_THREADS" in str(refused.value)


@pytest.mark.parametrize("twice", ["MEMORY_TENANT_HMAC_KEY", "SECRET_KEY"])
def test_a_sealing_key_that_stands_in_another_place_too_does_not_serve(settings: Any, twice: str) -> None:
    setattr(settings, twice, settings.MEMORY_ENCRYPTION_KEY)
    with pytest.raises(ImproperlyConfigured, match=f"keys.E003: {twice} holds the same key") as caught:
        refuse_failed_checks()
    assert settings.MEMORY_ENCRYPTION_KEY not in str(caught.value)


def test_a_guessable_secret_key_does_not_serve(settings: Any) -> None:
    settings.SECRET_KEY = "guess"
    with pytest.raises(ImproperlyConfigured, match=r"keys\.E004"):
        refuse_failed_checks()
