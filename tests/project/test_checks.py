"""The system checks of the database's settings."""

from typing import Any

import pytest
from pytest_django import Settings

from database.embedded_postgres import binaries
from project import checks


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
