from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.test import Client
from django.utils import timezone

from tests.factories import make_user

pytestmark = pytest.mark.django_db
LOGIN, RIGHT = "/admin/login/", "right"


def log_in(client: Client, name: str = "root", password: str = RIGHT) -> int:
    return client.post(LOGIN, {"username": name, "password": password}).status_code


@pytest.fixture(autouse=True)
def root() -> None:
    make_user("root", password="right", is_staff=True, is_superuser=True)


def test_right_password_logs_in() -> None:
    assert log_in(Client()) == 302


def test_failures_lock_out_even_the_right_password(settings: Any) -> None:
    client = Client()
    statuses = [log_in(client, password="wrong") for _ in range(settings.AXES_FAILURE_LIMIT)]
    assert statuses[0] == 200 and statuses[-1] == 429
    refused = client.post(LOGIN, {"username": "root", "password": "right"})
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) == 60 * settings.ADMIN_LOCKOUT_MINUTES


def test_lockout_follows_the_account_to_other_addresses_and_the_address_to_other_accounts(settings: Any) -> None:
    make_user("other", password="right", is_staff=True)
    for _ in range(settings.AXES_FAILURE_LIMIT):
        log_in(Client(REMOTE_ADDR="192.0.2.1"), password="wrong")
    assert log_in(Client(REMOTE_ADDR="192.0.2.2")) == 429
    assert log_in(Client(REMOTE_ADDR="192.0.2.1"), name="other") == 429
    assert log_in(Client(REMOTE_ADDR="192.0.2.2"), name="other") == 302


def test_lockout_ends(settings: Any) -> None:
    client = Client()
    for _ in range(settings.AXES_FAILURE_LIMIT):
        log_in(client, password="wrong")
    AccessAttempt.objects.update(attempt_time=timezone.now() - settings.AXES_COOLOFF_TIME - timedelta(seconds=1))
    assert log_in(client) == 302


def test_behind_a_proxy_the_callers_own_address_is_locked_out(settings: Any) -> None:
    settings.TRUSTED_PROXY_COUNT = 1
    make_user("other", password="right", is_staff=True)
    for _ in range(settings.AXES_FAILURE_LIMIT):
        log_in(Client(headers={"X-Forwarded-For": "192.0.2.1"}), password="wrong")
    assert log_in(Client(headers={"X-Forwarded-For": "192.0.2.1"}), name="other") == 429
    assert log_in(Client(headers={"X-Forwarded-For": "192.0.2.9"}), name="other") == 302


def test_failed_login_keeps_no_password() -> None:
    log_in(Client(), password="a planted password")
    attempt = AccessAttempt.objects.get()
    assert "planted" not in str(vars(attempt))
