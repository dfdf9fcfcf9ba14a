"""The admin's first page."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from keys import heartbeat, jobs
from keys.held_keys import held_keys
from keys.key_ages import LONGEST
from keys.models import KeyRecord, Purpose, RotationRun
from keys.nonces import WARN_AT
from memory import metrics
from project.dashboard.recorder import Recorder
from tests.factories import make_token, make_user, remember

pytestmark = pytest.mark.django_db(transaction=True)
BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture
def recorded() -> Recorder:
    """A process that serves: it has reported itself, sampled, and every job has run."""
    heartbeat.beat("wsgi")
    for job in jobs.Job:
        jobs.record(job)
    recorder = Recorder()
    recorder.record()
    return recorder


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(make_user("root", is_staff=True, is_superuser=True), backend=BACKEND)
    return client


def page(client: Client, path: str = "/admin/") -> str:
    response = client.get(path)
    assert response.status_code == 200
    return str(response.content.decode())


def test_all_is_well(client: Client, recorded: Recorder) -> None:
    text = page(client)
    assert "All is well" in text and "Needs attention" not in text
    assert held_keys(Purpose.ENCRYPTION).current in text and 'http-equiv="refresh"' in text


def test_nothing_was_ever_recorded(client: Client) -> None:
    text = page(client)
    assert "No process has recorded anything yet" in text and "There was no backup yet" in text


def test_queries_of_every_kind_are_counted(client: Client, recorded: Recorder) -> None:
    remember("person:1", "a", "the ship sails at dawn")
    token = make_token(make_user("alice"))
    ask = {"data": {"query": "when does the ship sail?"}, "content_type": "application/json"}
    api = Client(headers={"Authorization": f"Bearer {token}"})
    assert api.post("/api/v1/memories/query", **ask).status_code == 200
    wrong = Client(headers={"Authorization": "Bearer smem_wrong"})
    assert wrong.post("/api/v1/memories/query", **ask).status_code == 401
    Client().post("/admin/login/", {"username": "root", "password": "wrong"})
    metrics.INTEGRITY_FAILURES.inc(2)
    recorded.tell()
    text = " ".join(page(client).split())
    assert "2 seals did not open in the last 24 hours" in text and "dashboard-red" in text
    for label, value in (("Wrong credentials", 1), ("Failed logins", 1)):
        assert f'{label}</a></dt> <dd class="dashboard-ok">{value}</dd>' in text, label
    assert 'Queries, 24 hours</dt> <dd class="dashboard-ok">' in text
    assert "disabled" in text  # how the reranker was passed over


@pytest.mark.parametrize(
    ("age_left", "level", "words"),
    [(timedelta(days=20), "ok", "All is well"), (timedelta(days=5), "amber", "is due for rotation"),
     (-timedelta(days=1), "red", "is older than a quarter")],
)  # fmt: skip
def test_due_dates_turn_amber_and_red(
    client: Client, recorded: Recorder, age_left: timedelta, level: str, words: str
) -> None:
    first_seen = timezone.now() - LONGEST[Purpose.ENCRYPTION][0] + age_left
    KeyRecord.objects.filter(purpose=Purpose.ENCRYPTION).update(first_seen=first_seen)
    text = page(client)
    assert words in text
    assert f'<dd class="dashboard-{level}">{timezone.now() + age_left:%Y-%m-%d}</dd>' in text


def test_the_nonce_budget_is_of_two_to_the_31(client: Client, recorded: Recorder) -> None:
    KeyRecord.objects.filter(purpose=Purpose.ENCRYPTION).update(seals=WARN_AT // 4)
    assert '<dd class="dashboard-ok">25.00%</dd>' in page(client)
    KeyRecord.objects.filter(purpose=Purpose.ENCRYPTION).update(seals=WARN_AT * 3 // 4)
    assert '<dd class="dashboard-amber">75.00%</dd>' in page(client)
    KeyRecord.objects.filter(purpose=Purpose.ENCRYPTION).update(seals=WARN_AT + WARN_AT // 10)
    assert '<dd class="dashboard-red">110.00%</dd>' in page(client)


def test_a_running_rotation_shows_rate_and_time_left(client: Client, recorded: Recorder) -> None:
    RotationRun.objects.create(
        kind="encryption", state="running", phase="reseal", rows_total=120_000, rows_done=60_000, rate=1000.0
    )
    assert "stopped" in page(client)
    from keys import leases
    from keys.runs import LEASE

    with leases.hold(LEASE):
        text = page(client)
    assert "50.0%" in text and "1 minute" in text and "1,000 rows/s" in text


def test_each_number_is_for_those_who_may_see_it(recorded: Recorder) -> None:
    clerk = make_user("clerk", is_staff=True)
    client = Client()
    client.force_login(clerk, backend=BACKEND)
    text = page(client)
    assert "Nonce budget" not in text and "Outgrown" not in text and "Queries, 24 hours" in text
    assert "/admin/keys/" not in text
    clerk.user_permissions.set(Permission.objects.filter(codename="view_keyrecord"))
    assert "Nonce budget" in page(client)


def test_seven_days_or_thirty(client: Client, recorded: Recorder) -> None:
    assert 'aria-current="true">7 days' in page(client)
    assert 'aria-current="true">30 days' in page(client, "/admin/?days=30")
    assert 'aria-current="true">7 days' in page(client, "/admin/?days=9999999")


def test_a_look_asks_little_and_no_table_of_rows(
    client: Client, recorded: Recorder, django_assert_max_num_queries: Any
) -> None:
    remember("person:1", "a", "one")
    page(client)
    with django_assert_max_num_queries(30) as asked:
        page(client)
    of_rows = re.compile(r"(FROM|JOIN) \"?(tenants|memory_(chunks|vectors|terms|operations))\b")
    assert not [each["sql"] for each in asked.captured_queries if of_rows.search(each["sql"])]
