"""Who does the calls: a serving process's thread, `manage.py work`, and what they do when they are told to end."""

import io
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from django.conf import settings as live_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from prometheus_client import REGISTRY
from pytest_django import Settings

from keys import heartbeat
from keys.models import JobRecord
from memory.access.identity import person_user_id
from memory.models import MemoryChunk, MemoryOperation
from memory.operations import due, worker
from memory.operations.worker import Worker, begin_working, end_working, submit
from memory.rls import tenant_transaction
from tests.children import child_environment
from tests.factories import ALICE, API, make_token, make_user, remember
from tests.memory.operations.queued import body, forget_the_total, observed, operation, queue_call, stored
from tests.memory.waiting import in_thread
from tests.serving import serving

pytestmark = pytest.mark.django_db(transaction=True)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def wait_until_finished(operation_id: Any) -> str:
    for _ in range(600):
        if (status := operation(operation_id).status) not in ("pending", "running"):
            return status
        time.sleep(0.05)
    raise AssertionError("It is not finished.")


@pytest.fixture
def serving_thread(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Any:
    settings.MEMORY_WORK_IN_SERVER = True
    monkeypatch.setattr(worker, "_serving", True)
    monkeypatch.setattr(worker, "_running", None)
    yield
    end_working(30)


def test_the_thread_of_a_serving_process_does_a_call_at_once(serving_thread: None) -> None:
    forget_the_total()
    begin_working()
    for doc_id in ("a", "b"):  # the second one wakes a thread that waits
        accepted = submit(user_id=ALICE, body=body(doc_id, "one"))
        assert wait_until_finished(accepted.id) == "succeeded"


@pytest.mark.parametrize("setting, serves", [(False, True), (True, False)])
def test_a_process_that_only_serves_or_does_not_serve_has_no_thread(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, setting: bool, serves: bool
) -> None:
    settings.MEMORY_WORK_IN_SERVER = setting
    monkeypatch.setattr(worker, "_serving", serves)
    monkeypatch.setattr(worker, "_running", None)
    forget_the_total()
    submit(user_id=ALICE, body=body("doc", "one"))
    assert worker._running is None


def test_a_thread_that_is_told_to_end_hands_its_call_back(serving_thread: None) -> None:
    """It stands between two portions; what it was told meanwhile it does at the next."""
    call = queue_call("doc", "one")
    claimed, told = threading.Event(), threading.Event()

    def observe(step: str) -> None:
        if step == "call claimed":
            claimed.set()
            told.wait(30)

    with observed(observe):
        begin_working()
        assert claimed.wait(30)
        end_working(0)
        told.set()
        end_working(30)
    assert (operation(call).status, stored()) == ("pending", [])
    assert Worker().run_until_empty() == 1


def test_two_workers_at_once_do_every_call_once() -> None:
    calls = [queue_call(f"doc-{number}", "one", user_id=f"person:{number % 4}") for number in range(12)]
    threads = [threading.Thread(target=in_thread, args=(Worker().run_until_empty,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Worker().run_until_empty()  # a worker that found every user's call held has gone
    for number, call in enumerate(calls):
        assert operation(call, f"person:{number % 4}").status == "succeeded"
    assert sum(len(stored(f"person:{number}")) for number in range(4)) == 12


def test_without_a_census_no_work_is_done_and_the_worker_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    queue_call("doc", "one")

    def refuses(**kwargs: Any) -> list[str]:
        raise ImproperlyConfigured("DATABASE_CENSUS_URL")

    with monkeypatch.context() as patched:
        patched.setattr(due, "due_users", refuses)
        assert Worker().run_due() == 0
    assert Worker().run_due() == 1


def test_a_worker_purges_what_has_expired_once_an_hour_whichever_it_is() -> None:
    def expired() -> None:
        remember(ALICE, "doc", "one")
        with tenant_transaction(ALICE):
            MemoryChunk.objects.update(expires_at="2000-01-01T00:00:00Z")

    expired()
    Worker().run_due()
    assert stored() == []
    expired()
    Worker().run_due()
    assert len(stored()) == 1
    JobRecord.objects.update(finished_at="2000-01-01T00:00:00Z")
    Worker().run_due()
    assert stored() == []


def test_the_command_works_the_queue_off_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its heartbeat would go on in this process; the command as a process of its own, below, has the real one.
    monkeypatch.setattr(heartbeat, "start", lambda role: None)
    queue_call("a", "one")
    queue_call("b", "one")
    before = value("memory_operations_total", outcome="succeeded")
    out, handler = io.StringIO(), signal.getsignal(signal.SIGTERM)
    call_command("work", "--until-empty", stdout=out)
    assert "2 calls were done" in out.getvalue()
    assert value("memory_operations_total", outcome="succeeded") == before + 2
    assert signal.getsignal(signal.SIGTERM) == handler


def test_the_command_ends_on_sigterm() -> None:
    command = [sys.executable, "manage.py", "work"]
    call = queue_call("doc", "one")
    with subprocess.Popen(
        command, cwd=live_settings.BASE_DIR, env=child_environment(), stdout=subprocess.PIPE
    ) as child:
        assert wait_until_finished(call) == "succeeded"
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
        assert child.stdout and b"1 calls were done" in child.stdout.read()


def test_a_real_server_accepts_does_and_hands_back_on_sigterm() -> None:
    """The client is gone after the 202; a server that ends in the middle leaves the call to the next."""
    user = make_user()
    asked = {"Authorization": f"Bearer {make_token(user)}", "Prefer": "respond-async"}
    long_text = "\n\n".join(f"Paragraph {number} tells of the garden and the river. " * 12 for number in range(300))
    with serving(MEMORY_EMBEDDING_THREADS="1") as server:
        short = server.ask(f"{API}/memories/index", body("doc", "one"), **asked)
        assert short.status == 202
        address = short.headers["Location"]
        for _ in range(600):
            seen = server.ask(address, Authorization=asked["Authorization"]).body
            if b'"succeeded"' in seen:
                break
            time.sleep(0.05)
        assert b'"succeeded"' in seen, seen
        long = server.ask(f"{API}/memories/index", {"doc_id": "long", "text": long_text}, **asked)
        assert long.status == 202
        for _ in range(600):
            seen = server.ask(long.headers["Location"], Authorization=asked["Authorization"]).body
            if b'"running"' in seen and b'"chunks_total":null' not in seen:
                break
            time.sleep(0.02)
        assert b'"running"' in seen, seen
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    assert unfinished(person_user_id(user.pk)) == ["pending"]
    assert stored(person_user_id(user.pk)) == [("doc", "one")]


def unfinished(user_id: str) -> list[str]:
    with tenant_transaction(user_id):
        return list(MemoryOperation.objects.exclude(state="succeeded").values_list("state", flat=True))
