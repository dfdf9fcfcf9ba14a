"""The admin's pages of keys and rotations."""

import re
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

from keys import heartbeat, jobs, leases, tallies
from keys.keyring import get_keyring
from keys.models import KeyRecord, Purpose, RotationRun
from keys.movers import mover_of
from keys.rotation import rotate
from keys.runs import LEASE
from memory.rotation.encryption_key import EncryptionKeyMover
from tests.factories import make_user
from tests.memory.rotation.rotating import USERS, hash_prefix, promoted, store_all, tamper

pytestmark = pytest.mark.django_db(transaction=True)
KEYS, RUNS, JOBS = "/admin/keys/keyrecord/", "/admin/keys/rotationrun/", "/admin/keys/jobrecord/"
TENANTS = "/admin/memory/tenants/"
BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(make_user("root", is_staff=True, is_superuser=True), backend=BACKEND)
    return client


def staff_client(*permissions: str) -> Client:
    user: User = make_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


def page(response: Any) -> str:
    assert response.status_code == 200, response.status_code
    return response.content.decode()


def count_rows() -> None:
    for purpose in Purpose:
        tallies.take(mover_of(purpose))


def test_the_key_page_says_what_key_status_says(client: Client) -> None:
    assert "Rows have not been counted yet" in page(client.get(KEYS))
    store_all()
    count_rows()
    heartbeat.beat("wsgi")
    text = page(client.get(KEYS))
    assert get_keyring().sealing.key_id in text and "Nothing to do" in text
    with promoted() as (old, _new):
        text = page(client.get(KEYS))
        assert f"Keep {old.key_id}" in text and "Needs attention" in text
        heartbeat.beat("wsgi")
        rotate(EncryptionKeyMover(), started_by="test")
        text = page(client.get(KEYS))
        assert f"{old.key_id} may be removed" in text and "Needs attention" not in text


def test_requesting_a_rotation_makes_a_run_and_is_logged(client: Client) -> None:
    assert "Request rotation" in page(client.get(KEYS))
    text = page(client.post(f"{RUNS}request/encryption/", follow=True))
    assert "Requested." in text
    run = RotationRun.objects.get()
    assert (run.state, run.requested_by) == ("requested", "root")
    (entry,) = LogEntry.objects.all()
    assert (entry.user.username, entry.object_id, entry.get_change_message()) == (
        "root",
        str(run.pk),
        "Requested a rotation.",
    )
    assert "Requested a rotation." in page(client.get("/admin/admin/logentry/"))
    assert "Cancel rotation" in page(client.get(KEYS))
    assert "open encryption rotation already" in page(client.post(f"{RUNS}request/encryption/", follow=True))
    assert RotationRun.objects.count() == 1
    assert LogEntry.objects.count() == 1


def test_a_rotation_is_not_requested_by_following_a_link(client: Client) -> None:
    assert client.get(f"{RUNS}request/encryption/").status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get(), backend=BACKEND)
    assert strict.post(f"{RUNS}request/encryption/").status_code == 403
    assert not RotationRun.objects.exists()


def test_looking_and_requesting_are_two_permissions(client: Client) -> None:
    clerk = staff_client("view_keyrecord", "view_rotationrun")
    assert "Request rotation" not in page(clerk.get(KEYS))
    assert "Request rotation" not in page(clerk.get(RUNS))
    assert clerk.post(f"{RUNS}request/encryption/").status_code == 403
    assert clerk.get(TENANTS).status_code == 403
    nobody = Client()
    for path in (KEYS, RUNS, TENANTS):
        assert nobody.get(path).status_code == 302


def test_a_running_rotation_shows_its_progress_and_refreshes(client: Client) -> None:
    RotationRun.objects.create(
        kind="encryption", state="running", phase="reseal", rows_total=200, rows_done=50, rate=1234.0,
        requested_by="root", started_by="shell:worker@host",
    )  # fmt: skip
    for path in (RUNS, f"{RUNS}{RotationRun.objects.get().pk}/change/"):
        response = client.get(path)
        text = page(response)
        assert "25.0%" in text and "1,234 rows/s" in text and "shell:worker@host" in text
        assert response["Refresh"] == "3"
    RotationRun.objects.update(state="finished")
    assert "Refresh" not in client.get(RUNS)


@pytest.mark.usefixtures("readable_names")
def test_failures_are_shown_by_row_and_tenant_prefix(client: Client) -> None:
    store_all()
    tamper("person:1", "UPDATE memory_chunks SET text_cipher = reverse(text_cipher) WHERE doc_id = 'doc-1'")
    run = rotate(EncryptionKeyMover(), started_by="test")
    text = page(client.get(f"{RUNS}{run.pk}/change/"))
    assert hash_prefix("person:1") in text and run.failures[0]["row"] in text


def test_nothing_can_be_entered_or_deleted(client: Client) -> None:
    run = RotationRun.objects.create(kind="encryption", state="finished")
    KeyRecord.objects.create(key_id="11111111", purpose="encryption")
    for path in (f"{RUNS}add/", f"{RUNS}{run.pk}/delete/"):
        assert client.get(path).status_code == 403
    assert client.post(f"{RUNS}{run.pk}/change/", {"state": "requested"}).status_code == 403
    assert client.get(f"{KEYS}add/").status_code == 404
    assert client.post(RUNS, {"action": "delete_selected", "_selected_action": [run.pk]}).status_code != 500
    assert RotationRun.objects.get().state == "finished"


@pytest.mark.parametrize("kind", ["encryption", "hmac"])
def test_either_rotation_is_requested_and_cancelled(client: Client, kind: str) -> None:
    page(client.post(f"{RUNS}request/{kind}/", follow=True))
    assert RotationRun.objects.get().kind == kind
    assert "Cancelled." in page(client.post(f"{RUNS}cancel/{kind}/", follow=True))
    assert (RotationRun.objects.get().state, RotationRun.objects.get().cancelled_by) == ("cancelled", "root")
    assert [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")] == [
        "Requested a rotation.",
        "Cancelled the rotation.",
    ]
    assert "no open" in page(client.post(f"{RUNS}cancel/{kind}/", follow=True))
    assert client.post(f"{RUNS}request/other/").status_code == 404


def test_while_a_rotation_runs_nothing_is_red_and_the_time_left_is_told(client: Client) -> None:
    store_all()
    with promoted() as (old, _new), leases.hold(LEASE):
        count_rows()
        assert f"still under {old.key_id}: run" in page(client.get(KEYS))
        RotationRun.objects.create(
            kind="encryption", state="running", phase="reseal", rows_total=90_000, rows_done=10_000, rate=100.0
        )
        text = page(client.get(KEYS))
        assert "still under" not in text and "Needs attention" not in text
        assert "time left of this pass: 13 min" in text
        assert text.count("Request rotation") == 1  # of the HMAC key


def test_a_job_is_requested_once_and_logged(client: Client) -> None:
    text = page(client.get(JOBS))
    assert "Verify now" in text and "Purge now" in text and "Backup now" not in text and "generate_keys" not in text
    assert "Requested." in page(client.post(f"{JOBS}request/verify/", follow=True))
    assert jobs.waiting() == [jobs.Job.VERIFY]
    response = client.get(JOBS)
    assert "Verify now" not in page(response) and response["Refresh"] == "3"
    assert "requested already" in page(client.post(f"{JOBS}request/verify/", follow=True))
    assert client.post(f"{JOBS}request/backup/").status_code == 404
    assert client.get(f"{JOBS}request/verify/").status_code == 405
    assert LogEntry.objects.get().get_change_message() == "Requested a verify."
    clerk = staff_client("view_jobrecord")
    assert "now</button>" not in page(clerk.get(JOBS))
    assert clerk.post(f"{JOBS}request/purge/").status_code == 403


def test_how_to_make_a_key_is_told_and_no_key_is_made(client: Client) -> None:
    text = page(client.get(KEYS))
    assert "manage.py generate_keys --next encryption" in text and "manage.py generate_keys --next hmac" in text
    assert not re.search(r"[A-Za-z0-9+/]{43}=", text)


def test_tenants_are_found_by_the_beginning_of_their_hash(client: Client) -> None:
    store_all()
    prefix = hash_prefix("person:1")
    text = page(client.get(f"{TENANTS}?q={prefix}"))
    assert "1 found." in text and prefix in text
    assert "1 found." in page(client.get(f"{TENANTS}?q={prefix.upper()}%E2%80%A6"))
    assert "0 found." in page(client.get(f"{TENANTS}?q={'0' * 64}"))
    assert "hexadecimal digits only" in page(client.get(TENANTS, {"q": "' OR 1=1"}))


def test_tenants_are_prefixes_and_counts(client: Client) -> None:
    store_all()
    text = page(client.get(TENANTS))
    assert "3 tenants" in text
    for user_id in USERS:
        assert hash_prefix(user_id) in text
        assert user_id not in text
    assert page(client.get(f"{TENANTS}?page=2")) and page(client.get(f"{TENANTS}?page=x"))
    assert TENANTS in page(client.get("/admin/"))


def test_no_page_shows_a_text_or_key_material(client: Client) -> None:
    store_all()
    with promoted():
        heartbeat.beat("wsgi")
        rotate(EncryptionKeyMover(), started_by="test")
        client.post(f"{RUNS}request/encryption/")
        seen = walk(client)
        secrets = [
            settings.MEMORY_ENCRYPTION_KEY,
            settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED[0],
            settings.MEMORY_TENANT_HMAC_KEY,
            "remembers number",
            *USERS,
        ]
    assert {KEYS, RUNS, TENANTS} <= set(seen)
    assert len(seen) > 20
    for path, text in seen.items():
        assert not [secret for secret in secrets if secret in text], path


def walk(client: Client) -> dict[str, str]:
    """Every page of the admin that a link leads to, by path."""
    seen: dict[str, str] = {}
    waiting = ["/admin/"]
    while waiting:
        path = waiting.pop()
        if path in seen or "logout" in path or path.count("/") > 8:
            continue
        response = client.get(path, follow=True)
        seen[path] = response.content.decode(errors="replace") if not response.streaming else ""
        assert response.status_code < 500, path
        waiting += [link.split("#")[0].split("?")[0] for link in re.findall(r'href="(/admin/[^"]*)"', seen[path])]
    return seen
