"""The four roles, and being the owner for a moment."""

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connections
from pytest_django import Settings

from database.roles import as_owner


def current_user() -> str:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT current_user")
        return cursor.fetchone()[0]


@pytest.mark.django_db
def test_tests_run_as_the_application() -> None:
    assert current_user() == "memory_app"


@pytest.mark.django_db(transaction=True)
def test_as_owner_swaps_the_connection_and_restores_it_after_an_exception() -> None:
    before = connections["default"]
    with pytest.raises(ValueError, match="inside"), as_owner():
        assert current_user() == "memory_owner"
        raise ValueError("inside")
    assert connections["default"] is before
    assert current_user() == "memory_app"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round", [1, 2])
def test_rows_of_a_transactional_test_are_flushed(round: int) -> None:
    assert not User.objects.exists()
    User.objects.create_user("somebody")
    assert User.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("command", ["migrate", "flush", "createcachetable"])
def test_a_command_of_the_owner_without_its_url_says_so_in_one_line(settings: Settings, command: str) -> None:
    settings.DATABASE_ROLES = {"app": settings.DATABASE_ROLES["app"]}
    with pytest.raises(CommandError, match="set DATABASE_OWNER_URL"):
        call_command(command)
