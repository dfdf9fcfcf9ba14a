"""The report of the keys through a whole rotation, and its command."""

import json
from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import override_settings

from keys import heartbeat, nonces
from keys.generation import generate_key
from keys.keyring import get_keyring, parse_key
from keys.models import KeyRecord, ProcessHeartbeat, RotationRun
from keys.pace import Pace
from keys.rotation import rotate
from keys.status import KeyFacts, KeyReport, key_report
from memory.rotation.encryption_key import EncryptionKeyMover
from tests.memory.rotation.rotating import ROWS_EACH, USERS, promoted, store_all

pytestmark = pytest.mark.django_db(transaction=True)


def facts(report: KeyReport, key_id: str) -> KeyFacts:
    (found,) = [key for key in report.keys if key.key_id == key_id]
    return found


def test_the_report_is_right_at_every_step_of_a_rotation() -> None:
    store_all()
    old, coming = settings.MEMORY_ENCRYPTION_KEY, generate_key()
    old_id, new_id = parse_key(old).key_id, parse_key(coming).key_id
    heartbeat.beat("wsgi")

    report = key_report()
    assert (facts(report, old_id).state, facts(report, old_id).tenants) == ("sealing", len(USERS))
    assert facts(report, old_id).rows == {"memory_chunks": len(USERS) * ROWS_EACH, "tenants": len(USERS)}
    assert len(facts(report, old_id).processes) == 1
    assert report.attention == []
    assert "Nothing to do" in report.next_steps[-1]

    with override_settings(MEMORY_ENCRYPTION_KEYS_ACCEPTED=[coming]):
        # This process reads it, the serving one does not yet.
        report = key_report()
        assert facts(report, new_id).state == "accepted"
        assert any(f"Do not seal with {new_id} yet" in step for step in report.next_steps)
        heartbeat.beat("wsgi")
        report = key_report()
        assert any("safe to make it MEMORY_ENCRYPTION_KEY" in step for step in report.next_steps)
        assert (report.attention, report.removable) == ([], [])

    with promoted(coming):
        report = key_report()
        assert facts(report, new_id).state == "sealing"
        assert facts(report, old_id).state == "accepted"
        assert any(f"Keep {old_id}" in step for step in report.next_steps)
        assert any("rows are still under" in line for line in report.attention)
        assert any(f"seals under {old_id}" in line for line in report.attention)
        heartbeat.beat("wsgi")
        rotate(EncryptionKeyMover(), started_by="test", pace=Pace(batch=5))
        report = key_report()
        assert (report.attention, report.removable) == ([], [old_id])
        assert any(f"{old_id} may be removed" in step for step in report.next_steps)

    with promoted(coming, accept_old=False):
        heartbeat.beat("wsgi")
        report = key_report()
        assert facts(report, old_id).state == "past"
        assert report.attention == []


def test_rows_under_a_key_that_is_not_held_need_attention() -> None:
    store_all()
    needed = get_keyring().sealing.key_id
    with override_settings(MEMORY_ENCRYPTION_KEY=generate_key()):
        report = key_report()
        assert facts(report, needed).state == "unknown"
        assert any("not held here" in line for line in report.attention)


def test_a_key_without_rows_is_kept_until_a_rotation_has_verified_that() -> None:
    old = parse_key(settings.MEMORY_ENCRYPTION_KEY).key_id
    KeyRecord.objects.create(key_id=old, purpose="encryption", seals=1)
    with promoted():
        assert key_report().removable == []
        assert any(f"Keep {old} until" in step for step in key_report().next_steps)


def test_half_the_nonce_budget_is_a_warning() -> None:
    key_id = get_keyring().sealing.key_id
    KeyRecord.objects.update_or_create(key_id=key_id, defaults={"purpose": "encryption", "seals": nonces.WARN_AT})
    assert any("rotate it soon" in line for line in key_report().attention)
    KeyRecord.objects.filter(key_id=key_id).update(seals=nonces.WARN_AT - 1)
    assert key_report().attention == []


@pytest.mark.parametrize(
    ("state", "words"), [("interrupted", "was interrupted"), ("running", "without a word"), ("failed", "failed: why")]
)
def test_a_run_that_did_not_end_well_needs_attention(state: str, words: str) -> None:
    RotationRun.objects.create(kind="encryption", state=state, message="why")
    assert any(words in line for line in key_report().attention)


def test_the_command_prints_ids_and_no_material() -> None:
    store_all()
    out = StringIO()
    call_command("key_status", stdout=out)
    assert get_keyring().sealing.key_id in out.getvalue()
    assert settings.MEMORY_ENCRYPTION_KEY not in out.getvalue()
    assert "> Nothing to do." in out.getvalue()


def test_the_command_exits_with_1_when_something_needs_attention() -> None:
    heartbeat.beat("wsgi")
    ProcessHeartbeat.objects.update(encryption_key_ids=[])
    out = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("key_status", "--json", stdout=out)
    assert caught.value.returncode == 1
    report = json.loads(out.getvalue())
    assert report["attention"]
    assert report["keys"][0]["key_id"] == get_keyring().sealing.key_id


@pytest.mark.parametrize("kind, name", [("encryption", "encryption"), ("hmac", "tenant HMAC")])
def test_the_command_shows_the_last_rotation_of_either_kind(kind: str, name: str) -> None:
    RotationRun.objects.create(kind=kind, state="finished", phase="verify", rows_done=7, rows_total=7, verified=True)
    out = StringIO()
    call_command("key_status", stdout=out)
    assert f"Last {name} rotation: finished, verify, 7 of 7 rows, verified" in out.getvalue()
    assert key_report().as_json()["run" if kind == "encryption" else "hmac_run"]["rows_done"] == 7
