"""Maintenance jobs: asked for, taken up by one process, handed back, ended."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from keys import jobs, leases
from keys.exceptions import JobRefused, LeaseTaken
from keys.jobs import HandedBack, Job
from keys.models import JobRecord

pytestmark = pytest.mark.django_db(transaction=True)


def state(job: Job = Job.VERIFY) -> str:
    return jobs.state(JobRecord.objects.get(name=job))


def test_a_job_is_asked_for_done_and_ended() -> None:
    jobs.request(Job.VERIFY, requested_by="root")
    assert (state(), jobs.waiting()) == ("requested", [Job.VERIFY])
    with jobs.running(Job.VERIFY, total=10) as progress:
        assert (state(), jobs.waiting()) == ("running", [])
        progress.advance(10)
        progress.succeeded, progress.message = True, "all of it"
    record = JobRecord.objects.get(name=Job.VERIFY)
    assert (jobs.state(record), record.done, record.succeeded, record.message) == ("ended", 10, True, "all of it")
    jobs.request(Job.VERIFY, requested_by="root")
    assert state() == "requested"


def test_it_is_not_asked_for_twice() -> None:
    jobs.request(Job.PURGE, requested_by="root")
    with pytest.raises(JobRefused, match="requested already"):
        jobs.request(Job.PURGE, requested_by="clerk")
    with jobs.running(Job.PURGE), pytest.raises(JobRefused, match="running already"):
        jobs.request(Job.PURGE, requested_by="clerk")


def test_a_backup_is_not_asked_for() -> None:
    with pytest.raises(JobRefused):
        jobs.request(Job.BACKUP, requested_by="root")


def test_one_process_does_it() -> None:
    jobs.request(Job.VERIFY, requested_by="root")
    with jobs.running(Job.VERIFY) as progress:
        leases.Lease.objects.update(holder="another")
        with pytest.raises(LeaseTaken), jobs.running(Job.VERIFY):
            raise AssertionError
        progress.succeeded = True
    with pytest.raises(JobRefused), jobs.running(Job.PURGE):
        raise AssertionError


def test_who_must_end_hands_it_back() -> None:
    jobs.request(Job.VERIFY, requested_by="root")
    with jobs.running(Job.VERIFY):
        raise HandedBack
    assert jobs.waiting() == [Job.VERIFY]


def test_an_error_is_an_end_that_did_not_succeed() -> None:
    jobs.request(Job.VERIFY, requested_by="root")
    with pytest.raises(RuntimeError), jobs.running(Job.VERIFY):
        raise RuntimeError
    record = JobRecord.objects.get(name=Job.VERIFY)
    assert (jobs.state(record), record.succeeded) == ("ended", False)


def test_one_whose_process_died_is_stopped_and_is_not_begun_by_itself() -> None:
    jobs.request(Job.VERIFY, requested_by="root")
    JobRecord.objects.update(started_at=Now() - timedelta(hours=1))
    assert (state(), jobs.waiting()) == ("stopped", [])
    jobs.request(Job.VERIFY, requested_by="root")
    assert state() == "requested"


def test_what_a_command_records_answers_a_request() -> None:
    jobs.request(Job.PURGE, requested_by="root")
    jobs.record(Job.PURGE)
    assert (state(Job.PURGE), jobs.waiting()) == ("ended", [])
