"""Index calls over HTTP that are answered at once and done later."""

from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from pytest_django import Settings

from tests.factories import API, make_token, make_user, person_client, vector
from tests.memory.operations.queued import forget_the_total, work

pytestmark = pytest.mark.django_db(transaction=True)
INDEX = f"{API}/memories/index"


@pytest.fixture(autouse=True)
def _fresh_total() -> None:
    forget_the_total()


@pytest.fixture
def alice() -> Client:
    return person_client("alice")


def document(doc_id: str = "doc", **fields: Any) -> dict[str, Any]:
    return {"doc_id": doc_id, "text": "a memory", "embedding": vector(), **fields}


def post(client: Client, body: Any, *, query: str = "", prefer: str | None = "respond-async") -> Any:
    headers = {} if prefer is None else {"Prefer": prefer}
    return client.post(f"{INDEX}{query}", body, content_type="application/json", headers=headers)


def test_a_call_is_accepted_followed_and_answers_what_the_synchronous_one_does(alice: Client) -> None:
    accepted = post(alice, document())
    assert accepted.status_code == 202
    told = accepted.json()
    assert accepted["Location"] == f"{API}/operations/{told['id']}"
    assert accepted["Preference-Applied"] == "respond-async"
    assert (told["status"], told["progress"]) == ("pending", {"chunks_done": 0, "chunks_total": None})
    waiting = alice.get(accepted["Location"])
    assert (waiting.status_code, waiting["Retry-After"], waiting.json()) == (200, "1", told)
    work()
    done = alice.get(accepted["Location"])
    assert "Retry-After" not in done
    assert (done.json()["status"], done.json()["error"]) == ("succeeded", None)
    assert done.json()["progress"] == {"chunks_done": 1, "chunks_total": 1}
    synchronous = post(alice, document(), prefer=None).json()
    (later,), (now,) = done.json()["result"]["documents"], synchronous["documents"]
    assert (now["doc_id"], now["replaced"], later["replaced"]) == ("doc", 1, 0)
    assert now.keys() == later.keys()


@pytest.mark.parametrize(
    ("query", "prefer", "status"),
    [
        ("", None, 200),
        ("?wait=true", None, 200),
        ("?wait=false", None, 202),
        ("", "wait=10, Respond-Async; x=1", 202),
        ("", "return=minimal", 200),
        ("?wait=perhaps", None, 400),
        ("?wiat=false", None, 400),
        ("?wait=false&wait=true", None, 400),
    ],
)
def test_who_waits(alice: Client, query: str, prefer: str | None, status: int) -> None:
    assert post(alice, document(), query=query, prefer=prefer).status_code == status


@pytest.mark.parametrize("bad", [{"text": 5}, {"documents": []}, {"text": "x", "embedding": [0.0] * 384}, []])
def test_what_has_the_wrong_shape_is_refused_at_once_and_not_queued(alice: Client, bad: Any) -> None:
    refused = post(alice, bad)
    assert refused.status_code == 400
    assert work() == 0


def test_what_fails_later_has_the_error_that_the_synchronous_call_has(alice: Client, settings: Settings) -> None:
    settings.MEMORY_MAX_CHUNKS = 2
    body = {"doc_id": "doc", "text": "-" * 5_000}
    accepted = post(alice, body)
    assert accepted.status_code == 202
    work()
    failed = alice.get(accepted["Location"]).json()
    synchronous = post(alice, body, prefer=None)
    assert (failed["status"], failed["result"]) == ("failed", None)
    assert failed["error"] == synchronous.json()
    assert failed["error"]["status"] == synchronous.status_code == 413


def test_another_users_operation_is_the_same_404_as_none(alice: Client) -> None:
    accepted = post(alice, document())
    theirs = person_client("bob").get(accepted["Location"])
    missing = alice.get(f"{API}/operations/{uuid4()}")
    assert theirs.status_code == missing.status_code == 404
    assert theirs.content == missing.content


def test_without_a_token_nothing_is_told(alice: Client) -> None:
    accepted = post(alice, document())
    assert Client().get(accepted["Location"]).status_code == 401


def test_too_many_of_one_user_are_429_and_too_many_of_all_503(alice: Client, settings: Settings) -> None:
    settings.MEMORY_OPERATIONS_PER_USER, settings.MEMORY_OPERATIONS_TOTAL = 1, 2
    assert post(alice, document()).status_code == 202
    refused = post(alice, document())
    assert (refused.status_code, refused["Retry-After"]) == (429, "5")
    assert post(alice, document(), prefer=None).status_code == 200  # who waits is served
    bob = person_client("bob")
    assert post(bob, document()).status_code == 202
    forget_the_total()
    full = post(person_client("carol"), document())
    assert (full.status_code, full["Retry-After"]) == (503, "5")
    work()
    forget_the_total()
    assert post(alice, document()).status_code == 202


def test_accepted_calls_count_against_the_rate_of_index_calls(settings: Settings) -> None:
    settings.MEMORY_THROTTLE_INDEX = "1/min"
    client = Client(headers={"Authorization": f"Bearer {make_token(make_user('dave'))}"})
    assert [post(client, document()).status_code for _ in range(2)] == [202, 429]


def test_an_erasure_forgets_the_queue(alice: Client) -> None:
    accepted = post(alice, document())
    receipt = alice.delete(f"{API}/memories").json()
    assert receipt["deleted"]["memory_operations"] == 1
    assert alice.get(accepted["Location"]).status_code == 404
    assert work() == 0
