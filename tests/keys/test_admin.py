"""The admin's pages of keys and rotations."""

import re
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

from keys import heartbeat
from keys.keyring import get_keyring
from keys.models import KeyRecord, RotationRun
from keys.rotation import rotate
from memory.rotation.encryption_key import EncryptionKeyMover
from tests.factories import make_user
from tests.memory.rotation.rotating import USERS, hash_prefix, promoted, store_all, tamper

pytestmark = pytest.mark.django_db(transaction=True)
KEYS, RUNS = "/admin/keys/keyrecord/", "/admin/keys/rotationrun/"
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


def test_the_key_page_says_what_key_status_says(client: Client) -> None:
    store_all()
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
    text = page(client.post(f"{RUNS}request/", follow=True))
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
    assert "open encryption rotation already" in page(client.post(f"{RUNS}request/", follow=True))
    assert RotationRun.objects.count() == 1
    assert LogEntry.objects.count() == 1


def test_a_rotation_is_not_requested_by_following_a_link(client: Client) -> None:
    assert client.get(f"{RUNS}request/").status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get(), backend=BACKEND)
    assert strict.post(f"{RUNS}request/").status_code == 403
    assert not RotationRun.objects.exists()


def test_looking_and_requesting_are_two_permissions(client: Client) -> None:
    clerk = staff_client("view_keyrecord", "view_rotationrun")
    assert "Request rotation" not in page(clerk.get(KEYS))
    assert "Request rotation" not in page(clerk.get(RUNS))
    assert clerk.post(f"{RUNS}request/").status_code == 403
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
        client.post(f"{RUNS}request/")
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
