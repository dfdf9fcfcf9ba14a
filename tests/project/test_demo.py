"""`manage.py demo`, with its real server, on the test database: what a newcomer sees first."""

import base64
from io import StringIO

import pytest
from django.conf import settings
from django.core.management import call_command

from memory.rotation.integrity import inspect_all
from tests.children import child_environment


@pytest.mark.django_db(transaction=True)
def test_it_tells_the_whole_story_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)
    out = StringIO()
    call_command("demo", stdout=out)
    told = out.getvalue()
    # Stored and found; not found by the other user; refused where the sealed row was moved.
    assert "Stored in 7 chunks" in told and "I am allergic to penicillin; tell every doctor." in told
    assert told.count("nothing found") == 1
    assert "note-allergy" not in told.partition("as a database dump shows it")[2].partition("Alice's sealed row")[0]
    assert "integrity_failures: 1 (left out: the seal does not open for bob)" in told
    assert "text_cipher" in told and "Authorization: Bearer smem_" in told
    material = (settings.MEMORY_ENCRYPTION_KEY, settings.MEMORY_TENANT_HMAC_KEY, settings.SECRET_KEY)
    for secret in (*material, *(base64.b64decode(key).hex() for key in material[:2])):
        assert secret not in told
    assert inspect_all().found == 0


@pytest.mark.django_db(transaction=True)
def test_a_server_that_does_not_come_up_shows_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "")
    out = StringIO()
    with pytest.raises(Exception, match="stopped while starting"):
        call_command("demo", stdout=out)
    assert "Worker failed to boot" in out.getvalue()
