"""Idempotency-Key: one request, one effect, one answer."""

import threading
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import InterfaceError, OperationalError, connection, connections
from django.test import override_settings
from django.utils import timezone

from keys import nonces
from keys.exceptions import NonceBudgetSpent
from keys.generation import generate_key
from keys.keyring import parse_key
from memory.api import once
from memory.erasure import erase_user
from memory.models import MemoryRequest
from memory.operations import idempotency
from memory.rls import tenant_transaction
from memory.rotation.integrity import inspect_all
from tests.factories import API, api_client, make_service, stored_texts, vector
from tests.memory.rotation.hmac_rotating import promoted

pytestmark = pytest.mark.django_db(transaction=True)
INDEX = f"{API}/memories/index"
ALICE, BOB = "service:acme:alice", "service:acme:bob"


@pytest.fixture
def secret() -> str:
    return make_service()


@pytest.fixture
def client(secret: str) -> Any:
    return api_client(secret, user="alice")


def index(client: Any, text: str, key: str | None, path: str = INDEX, **fields: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"text": text, "embedding": vector(), **fields}
    return client.post(path, body, content_type="application/json", headers=headers)


def test_the_same_request_is_carried_out_once_and_answered_the_same(client: Any) -> None:
    first, second = (index(client, "a memory", "k-1") for _ in range(2))
    assert first.status_code == 200 and "Idempotency-Replayed" not in first
    assert second.json() == first.json() and second["Idempotency-Replayed"] == "true"
    assert second["Content-Type"] == first["Content-Type"]
    assert stored_texts(ALICE) == ["a memory"]
    assert index(client, "a memory", "k-2").json() != first.json()
    assert len(stored_texts(ALICE)) == 2


def test_another_request_under_the_same_key_is_422(client: Any) -> None:
    index(client, "a memory", "k")
    refused = index(client, "another memory", "k")
    assert refused.status_code == 422
    assert [each["field"] for each in refused.json()["errors"]] == ["Idempotency-Key"]
    memory_id = index(client, "a memory", "k").json()["documents"][0]["chunk_ids"][0]
    assert client.delete(f"{API}/memories/{memory_id}", headers={"Idempotency-Key": "k"}).status_code == 422
    assert stored_texts(ALICE) == ["a memory"]


def test_two_users_never_meet_in_a_key(client: Any, secret: str) -> None:
    bob = api_client(secret, user="bob")
    for each, user_id in ((client, ALICE), (bob, BOB)):
        assert "Idempotency-Replayed" not in index(each, "a memory", "same")
        assert stored_texts(user_id) == ["a memory"]


def test_every_verb_that_changes_something_takes_a_key(client: Any) -> None:
    (memory_id,) = index(client, "a memory", None, doc_id="doc").json()["documents"][0]["chunk_ids"]
    patch = {"metadata": {"seen": True}}
    one, document = f"{API}/memories/{memory_id}", f"{API}/documents/doc"

    def twice(verb: str, path: str, *body: Any) -> Any:
        headers = {"Idempotency-Key": f"{verb} {path}"}
        answers = [
            getattr(client, verb)(path, *body, content_type="application/json", headers=headers) for _ in range(2)
        ]
        assert answers[0].json() == answers[1].json() and answers[1]["Idempotency-Replayed"] == "true"
        return answers[0]

    assert twice("patch", one, patch).json()["metadata"] == {"seen": True}
    assert twice("patch", document, patch).status_code == 200
    assert twice("delete", one).json() == {"deleted": 1}
    assert twice("delete", document).status_code == 404
    assert twice("post", f"{API}/memories/delete", {"ids": [memory_id]}).json() == {"deleted": 0}


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "tab\tbed", "line\x7f"])
def test_keys_that_are_none_are_refused(client: Any, key: str) -> None:
    refused = index(client, "a memory", key)
    assert refused.status_code == 400
    assert [each["field"] for each in refused.json()["errors"]] == ["Idempotency-Key"]
    assert stored_texts(ALICE) == []


@pytest.mark.parametrize("key", ["k", "x" * 255, '"quoted"'])
def test_keys_of_any_allowed_length_are_taken(client: Any, key: str) -> None:
    assert index(client, "a memory", key).status_code == 200
    assert index(client, "a memory", key)["Idempotency-Replayed"] == "true"


def test_findings_are_kept_and_what_may_pass_is_not(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert index(client, " ", "bad").status_code == 400
    assert index(client, " ", "bad")["Idempotency-Replayed"] == "true"

    def away(**kwargs: Any) -> Any:
        raise OperationalError

    with monkeypatch.context() as patched:
        patched.setattr("memory.api.views.index_documents", away)
        assert index(client, "a memory", "k").status_code == 503
    again = index(client, "a memory", "k")
    assert again.status_code == 200 and "Idempotency-Replayed" not in again


@pytest.mark.parametrize("failure", [OperationalError, InterfaceError, NonceBudgetSpent])
def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    client: Any, monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    def fail(**kwargs: Any) -> None:
        raise failure

    monkeypatch.setattr(idempotency, "finish", fail)
    assert index(client, "a memory", "k").status_code == 200
    assert stored_texts(ALICE) == ["a memory"]


def test_a_request_in_flight_is_409_until_its_holder_is_taken_for_dead(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the process had been killed after its commit: nothing is concluded.
    with monkeypatch.context() as killed:
        killed.setattr(once, "conclude", lambda *args: None)
        first = index(client, "a memory", "k")
    waiting = index(client, "a memory", "k")
    assert waiting.status_code == 409
    assert 1 <= int(waiting["Retry-After"]) <= 60
    with tenant_transaction(ALICE):
        MemoryRequest.objects.update(held_until=timezone.now() - timedelta(seconds=1))
    again = index(client, "a memory", "k")
    assert again.status_code == 200
    assert again.json()["documents"][0]["doc_id"] == first.json()["documents"][0]["doc_id"]
    assert stored_texts(ALICE) == ["a memory"], "carried out twice, stored once"
    assert index(client, "a memory", "k")["Idempotency-Replayed"] == "true"


def test_at_once_only_one_is_carried_out(client: Any, secret: str) -> None:
    outcomes: list[int] = []
    barrier = threading.Barrier(6)

    def send() -> None:
        try:
            barrier.wait()
            outcomes.append(index(api_client(secret, user="alice"), "a memory", "k").status_code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {200, 409} and 200 in outcomes
    assert stored_texts(ALICE) == ["a memory"]


def test_an_accepted_call_is_accepted_once(client: Any) -> None:
    first, second = (index(client, "a memory", "k", f"{INDEX}?wait=false") for _ in range(2))
    assert first.status_code == second.status_code == 202
    assert first["Location"] == second["Location"]
    with connection.cursor() as cursor, tenant_transaction(ALICE):
        cursor.execute("SELECT count(*) FROM memory_operations")
        assert cursor.fetchone() == (1,)


def test_a_dump_tells_nothing_of_a_key_or_an_answer(client: Any) -> None:
    index(client, "a telling text", "a telling key")
    with tenant_transaction(ALICE), connection.cursor() as cursor:
        cursor.execute("SELECT memory_requests::text FROM memory_requests")
        (row,) = cursor.fetchone()
    assert "telling" not in row and b"telling".hex() not in row


def test_old_answers_are_purged_and_an_erased_user_leaves_none(client: Any, settings: Any) -> None:
    index(client, "a memory", "k")
    assert idempotency.purge() == 0
    settings.MEMORY_IDEMPOTENCY_HOURS = 0
    assert idempotency.purge() == 1
    index(client, "a memory", "k")
    assert erase_user(user_id=ALICE).remaining["memory_requests"] == 0
    erased = client.delete(f"{API}/memories", headers={"Idempotency-Key": "e"})
    assert erased.status_code == 200
    with tenant_transaction(ALICE):
        assert not MemoryRequest.objects.exists()


def test_seals_of_kept_answers_are_inspected(client: Any) -> None:
    index(client, "a memory", "k")
    before = inspect_all()
    assert not before.found and before.rows >= 2
    with tenant_transaction(ALICE), connection.cursor() as cursor:
        cursor.execute("UPDATE memory_requests SET record_cipher = set_byte(record_cipher, 20, 1)")
        cursor.execute("UPDATE memory_requests SET record_cipher = set_byte(record_cipher, 21, 2)")
    assert inspect_all().found == 1


def test_both_rotations_take_kept_answers_along(client: Any) -> None:
    first = index(client, "a memory", "k").json()
    old, new = settings.MEMORY_ENCRYPTION_KEY, generate_key()
    with promoted():
        assert index(client, "a memory", "k").json() == first
        call_command("rotate_hmac_key", stdout=StringIO(), stderr=StringIO())
        assert index(client, "a memory", "k").json() == first
        assert index(client, "another", "k").status_code == 422
        with override_settings(MEMORY_ENCRYPTION_KEY=new, MEMORY_ENCRYPTION_KEYS_ACCEPTED=[old]):
            call_command("rotate_encryption_key", stdout=StringIO(), stderr=StringIO())
        with override_settings(MEMORY_ENCRYPTION_KEY=new, MEMORY_ENCRYPTION_KEYS_ACCEPTED=[]):
            assert index(client, "a memory", "k").json() == first
            assert stored_texts(ALICE) == ["a memory"]
    nonces.discard(parse_key(new).key_id)
