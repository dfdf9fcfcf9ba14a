"""The gauges of what the database knows."""

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from keys import jobs, leases
from keys.held_keys import held_keys
from keys.key_ages import LONGEST
from keys.models import KeyRecord, Purpose, RotationRun
from keys.nonces import REFUSE_AT
from keys.runs import LEASE
from memory.models import MemoryOperation, Tenant
from memory.operations import queue
from memory.rls import tenant_transaction
from memory.security import hmac_user
from project import database_metrics
from tests.factories import remember
from tests.memory.operations.queued import queue_call

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(database_metrics, "page", database_metrics._Page(clock=lambda: now[0]))
    return now


@pytest.fixture
def scrape(settings: Any, clock: list[float]) -> Any:
    settings.METRICS_TOKEN = "scrape-me"

    def scraped() -> dict[str, float]:
        page = Client(headers={"Authorization": "Bearer scrape-me"}).get("/metrics").content.decode()
        lines = [line.rsplit(" ", 1) for line in page.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in lines if name.startswith(("memory_", "keys_"))}

    return scraped


def test_tenants_are_counted(scrape: Any, settings: Any) -> None:
    settings.MEMORY_EXACT_SCAN_MAX = 1
    remember("person:1", "a", "one", "two")
    remember("person:2", "a", "one")
    with tenant_transaction("person:2"):
        Tenant.objects.update(recipe='{"model": "another"}')
    found = scrape()
    names = ("memory_tenants", "memory_chunks", "memory_tenants_outgrown", "memory_tenants_stale", "memory_database_up")
    assert [found[name] for name in names] == [2, 3, 1, 1, 1]


def test_calls_that_wait_and_the_age_of_the_oldest(scrape: Any, clock: list[float]) -> None:
    assert scrape()["memory_operations_oldest_seconds"] == 0
    queue_call("a", "one", user_id="person:1")
    queue_call("b", "one", user_id="person:1")
    queue_call("a", "one", user_id="person:2")
    assert queue.claim(hmac_user("person:2"))
    with tenant_transaction("person:1"):
        MemoryOperation.objects.filter(number=1).update(created_at=timezone.now() - timedelta(minutes=5))
    clock[0] += 61
    found = scrape()
    assert found['memory_operations_unfinished{state="pending"}'] == 2
    assert found['memory_operations_unfinished{state="running"}'] == 1
    assert found["memory_operations_oldest_seconds"] >= 300


def test_seals_and_due_dates_of_the_keys_held(scrape: Any) -> None:
    sealing, hashing = held_keys(Purpose.ENCRYPTION).current, held_keys(Purpose.HMAC).current
    old = timezone.now() - LONGEST[Purpose.ENCRYPTION][0] - timedelta(hours=1)
    KeyRecord.objects.update_or_create(
        key_id=sealing, defaults={"purpose": Purpose.ENCRYPTION, "seals": 5_000, "first_seen": old}
    )
    KeyRecord.objects.update_or_create(key_id=hashing, defaults={"purpose": Purpose.HMAC})
    found = scrape()
    assert found[f'keys_seals{{key_id="{sealing}"}}'] == 5_000
    assert found["keys_seals_refused_at"] == REFUSE_AT
    assert -3_700 < found['keys_rotation_due_seconds{purpose="encryption"}'] < -3_500
    assert found['keys_rotation_due_seconds{purpose="hmac"}'] > 360 * 86_400


def test_a_rotation_that_nobody_works_on_is_seen(scrape: Any, clock: list[float]) -> None:
    RotationRun.objects.create(
        kind=Purpose.ENCRYPTION, state=RotationRun.State.RUNNING, rows_done=3, rows_total=10, requested_by="test"
    )
    stopped = 'keys_rotation_stopped{kind="encryption"}'
    found = scrape()
    assert (found[stopped], found['keys_rotation_rows_done{kind="encryption"}']) == (1, 3)
    with leases.hold(LEASE):
        clock[0] += database_metrics.FRESH_SECONDS + 1
        assert scrape()[stopped] == 0


def test_a_job_that_never_ran_has_no_age(scrape: Any) -> None:
    assert 'keys_job_age_seconds{job="backup"}' not in scrape()


def test_a_finished_backup_and_a_failed_verification_are_told(scrape: Any) -> None:
    call_command("record_backup", stdout=StringIO())
    jobs.record(jobs.Job.VERIFY, succeeded=False)
    found = scrape()
    assert 0 <= found['keys_job_age_seconds{job="backup"}'] < 60
    assert found['keys_job_failed{job="backup"}'] == 0 and found['keys_job_failed{job="verify"}'] == 1


def test_verification_records_itself(scrape: Any) -> None:
    call_command("verify_integrity", stdout=StringIO())
    assert scrape()['keys_job_failed{job="verify"}'] == 0


def test_the_database_is_asked_once_a_minute(
    scrape: Any, clock: list[float], django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scrape()
    with django_assert_num_queries(0):
        scrape()
    clock[0] += database_metrics.FRESH_SECONDS + 1
    remember("person:1", "a", "one")
    assert scrape()["memory_tenants"] == 1


def test_without_a_database_the_rest_is_told(scrape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise OperationalError("secret of the server")

    monkeypatch.setattr(database_metrics, "PARTS", (away,))
    found = scrape()
    assert found["memory_database_up"] == 0
    assert "memory_seals_total" in found


def test_the_number_of_series_does_not_grow_with_tenants(scrape: Any, clock: list[float]) -> None:
    remember("person:0", "a", "one")
    before = set(scrape())
    for number in range(1, 20):
        remember(f"person:{number}", "a", "one")
    clock[0] += database_metrics.FRESH_SECONDS + 1
    assert set(scrape()) == before
