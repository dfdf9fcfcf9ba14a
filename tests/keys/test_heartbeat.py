"""Who is alive and which keys they hold."""

import threading
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django.test import override_settings

from keys import heartbeat
from keys.generation import generate_key
from keys.keyring import get_keyring, parse_key
from keys.models import KeyRecord, ProcessHeartbeat, Purpose
from keys.repeating import Repeating

pytestmark = pytest.mark.django_db


def test_a_beat_tells_ids_and_never_material() -> None:
    heartbeat.beat("wsgi")
    heartbeat.beat("wsgi")
    process = ProcessHeartbeat.objects.get()
    keyring = get_keyring()
    assert process.role == "wsgi"
    assert (process.sealing_key_id, process.encryption_key_ids) == (keyring.sealing.key_id, [keyring.sealing.key_id])
    assert process.hmac_key_ids == [keyring.hmac_current.key_id]
    assert {record.key_id for record in KeyRecord.objects.all()} == {
        keyring.sealing.key_id,
        keyring.hmac_current.key_id,
    }


def test_a_process_that_lacks_a_key_is_found() -> None:
    heartbeat.beat("wsgi")
    held = get_keyring().sealing.key_id
    assert heartbeat.lacking(Purpose.ENCRYPTION, [held]) == []
    assert [process.role for process in heartbeat.lacking(Purpose.ENCRYPTION, ["11111111"])] == ["wsgi"]
    assert [process.role for process in heartbeat.lacking(Purpose.HMAC, ["11111111"])] == ["wsgi"]
    assert [process.role for process in heartbeat.with_another_current_key(Purpose.ENCRYPTION, "11111111")] == ["wsgi"]


def test_accepted_keys_count_as_held() -> None:
    coming = generate_key()
    with override_settings(MEMORY_ENCRYPTION_KEYS_ACCEPTED=[coming]):
        heartbeat.beat("asgi")
    assert heartbeat.lacking(Purpose.ENCRYPTION, [parse_key(coming).key_id]) == []


def test_a_silent_process_is_forgotten_after_a_minute() -> None:
    heartbeat.beat("wsgi")
    ProcessHeartbeat.objects.update(seen_at=Now() - timedelta(seconds=61))
    assert heartbeat.lacking(Purpose.ENCRYPTION, ["11111111"]) == []


@pytest.fixture
def _unstarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_heartbeat", None)
    monkeypatch.setattr(heartbeat, "_companions", [])
    monkeypatch.setattr(heartbeat, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr("os.register_at_fork", lambda **kwargs: None)


def await_heartbeat() -> threading.Thread:
    (thread,) = [each for each in threading.enumerate() if each.name == "key-heartbeat"]
    while not ProcessHeartbeat.objects.exists():
        thread.join(0.01)
        assert thread.is_alive()
    return thread


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_unstarted")
def test_a_process_that_was_stopped_signs_off_and_reports_itself_no_more(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="keys.heartbeat"):
        heartbeat.start("wsgi")
        thread = await_heartbeat()
        heartbeat.stop()
        heartbeat.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert not ProcessHeartbeat.objects.exists()
    assert [record.getMessage() for record in caplog.records] == ["process ends"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_unstarted")
def test_what_accompanies_a_process_begins_and_ends_with_it() -> None:
    calls: list[str] = []
    heartbeat.accompany(Repeating("companion", lambda: calls.append("work"), 60.0, at_end=lambda: calls.append("end")))
    heartbeat.start("wsgi")
    await_heartbeat()
    heartbeat.stop()
    assert calls in (["work", "end"], ["end"])
    assert not ProcessHeartbeat.objects.exists()
