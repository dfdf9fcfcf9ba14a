"""Verify and purge as a worker does them for an operator."""

import threading

import pytest

from keys import jobs
from keys.jobs import Job
from keys.models import JobRecord
from memory.operations import maintenance
from memory.operations.worker import Worker
from tests.factories import remember
from tests.memory.rotation.rotating import hash_prefix, store_all, tamper

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("readable_names")]


def never() -> bool:
    return False


def record(job: Job) -> JobRecord:
    return JobRecord.objects.get(name=job)


def test_verifying_tells_what_it_opened() -> None:
    store_all()
    jobs.request(Job.VERIFY, requested_by="root")
    maintenance.do_waiting(never)
    done = record(Job.VERIFY)
    assert done.succeeded and done.message.startswith("Everything is as it should be: 3 tenants")
    assert done.done == done.total > 0


def test_what_does_not_open_is_named_without_content() -> None:
    store_all()
    tamper("person:1", "UPDATE memory_chunks SET text_cipher = reverse(text_cipher) WHERE doc_id = 'doc-1'")
    jobs.request(Job.VERIFY, requested_by="root")
    maintenance.do_waiting(never)
    done = record(Job.VERIFY)
    assert not done.succeeded and hash_prefix("person:1") in done.message and "remembers" not in done.message


def test_a_process_that_ends_hands_it_back() -> None:
    store_all()
    jobs.request(Job.VERIFY, requested_by="root")
    maintenance.do_waiting(lambda: True)
    assert jobs.waiting() == [Job.VERIFY]


def test_an_error_ends_that_job_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("of the test")

    monkeypatch.setattr(maintenance, "_verify", broken)
    jobs.request(Job.VERIFY, requested_by="root")
    jobs.request(Job.PURGE, requested_by="root")
    maintenance.do_waiting(never)
    assert not record(Job.VERIFY).succeeded and record(Job.PURGE).succeeded


def test_a_worker_takes_it_up_in_a_thread_of_its_own() -> None:
    remember("person:1", "a", "one")
    jobs.request(Job.VERIFY, requested_by="root")
    worker = Worker()
    worker.run_due()
    assert worker._maintenance is not None and worker._maintenance is not threading.current_thread()
    worker._maintenance.join(30)
    assert record(Job.VERIFY).succeeded and "1 tenants" in record(Job.VERIFY).message
