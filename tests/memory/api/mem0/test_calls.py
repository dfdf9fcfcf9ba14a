"""What mem0's calls do, one by one."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from memory.exceptions import EmbeddingModelUnavailable, NoEmbedding
from memory.listing import list_chunks
from tests.factories import api_client, make_service, make_token, make_user, stored_texts
from tests.memory.api.mem0.calls import add, call, fields_of, listed, mem0_client

pytestmark = pytest.mark.django_db
ALICE = "service:acme:alice"


@pytest.fixture
def secret() -> str:
    return make_service()


@pytest.fixture
def client(secret: str) -> Client:
    return mem0_client(secret)


def test_ping_says_ok_to_a_token_alone(client: Client) -> None:
    answer = call(client, "get", "/v1/ping/")
    assert answer.status_code == 200 and answer.json()["status"] == "ok"
    for refused in (mem0_client(None), mem0_client("smem_wrong"), mem0_client("x", scheme="Basic")):
        assert call(refused, "get", "/v1/ping/").status_code == 401


def test_a_browsers_session_is_no_credential() -> None:
    client = Client()
    client.force_login(make_user())
    assert call(client, "get", "/v1/ping/").status_code == 401
    assert call(client, "delete", "/v1/memories/?user_id=*").status_code == 401


def test_messages_are_stored_as_they_are_in_one_document(client: Client) -> None:
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "  I am allergic to penicillin.\n"},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "name": "Carol", "content": "Me too."},
    ]
    answer = call(client, "post", "/v3/memories/add/", {"messages": messages, "user_id": "alice", "infer": True}).json()
    assert [each["memory"] for each in answer["results"]] == [m["content"] for m in messages[1:]]
    assert answer["status"] == "SUCCEEDED" and "infer" in answer["message"]
    chunks = list_chunks(user_id=ALICE, limit=9).chunks[::-1]
    assert [(chunk.doc_id, chunk.chunk_index) for chunk in chunks] == [(chunks[0].doc_id, n) for n in range(3)]
    shown = listed(client, filters={"user_id": "alice"})[::-1]
    assert [(each["role"], each["actor_id"]) for each in shown] == [
        ("user", None),
        ("assistant", None),
        (None, "Carol"),
    ]
    event = call(client, "get", f"/v1/event/{answer['event_id']}/").json()
    assert event["status"] == "SUCCEEDED" and event["results"] == answer["results"]


def test_a_long_message_is_split(client: Client) -> None:
    stored = add(client, "A sentence about the garden and its many flowers. " * 200, user_id="alice")
    assert len(stored) > 5 and len({each["id"] for each in stored}) == len(stored)


def test_what_is_known_of_a_memory_comes_back(client: Client) -> None:
    (stored,) = add(
        client,
        "The flight is at noon.",
        user_id="alice",
        agent_id="planner",
        run_id="trip-1",
        metadata={"kind": "trip"},
        timestamp=1_767_225_600,
        expiration_date="2999-12-31",
    )
    one = call(client, "get", f"/v1/memories/{stored['id']}/").json()
    assert {name: one[name] for name in ("user_id", "agent_id", "app_id", "run_id", "metadata", "memory")} == {
        "user_id": "alice", "agent_id": "planner", "app_id": None, "run_id": "trip-1", "metadata": {"kind": "trip"},
        "memory": "The flight is at noon.",
    }  # fmt: skip
    assert one["timestamp"] == "2026-01-01T00:00:00Z" and one["expiration_date"] == "2999-12-31"
    assert one == listed(client, filters={"user_id": "alice"})[0]
    found = call(
        client, "post", "/v3/memories/search/", {"query": "When is the flight?", "filters": {"user_id": "alice"}}
    )
    (match,) = found.json()["results"]
    assert 0 < match.pop("score") <= 1
    assert match == {name: value for name, value in one.items() if name != "updated_at"}


def test_a_memory_expires_as_its_last_day_ends(client: Client) -> None:
    today = timezone.now().date()
    add(client, "today", user_id="alice", expiration_date=today.isoformat())
    add(client, "yesterday", user_id="alice", expiration_date=(today - timedelta(days=1)).isoformat())
    assert [each["memory"] for each in listed(client, filters={"user_id": "alice"})] == ["today"]


def test_update_changes_what_is_named(client: Client) -> None:
    (stored,) = add(client, "old", user_id="alice", agent_id="a", metadata={"x": 1, "y": 2})
    path = f"/v1/memories/{stored['id']}/"
    changed = call(client, "put", path, {"text": "new", "metadata": {"x": 3}}).json()
    assert (changed["id"], changed["memory"], changed["metadata"]) == (stored["id"], "new", {"x": 3, "y": 2})
    assert changed["agent_id"] == "a"
    assert call(client, "put", path, {"expiration_date": "2999-01-01"}).json()["expiration_date"] == "2999-01-01"
    assert call(client, "put", path, {"expiration_date": None}).json()["expiration_date"] is None
    assert call(client, "put", path, {"timestamp": "2026-01-01"}).json()["timestamp"] == "2026-01-01T00:00:00Z"
    assert call(client, "get", path).json()["memory"] == "new"
    nothing = call(client, "put", path, {})
    assert (nothing.status_code, fields_of(nothing)) == (400, ["text"])
    reserved = call(client, "put", path, {"metadata": {"agent_id": "b"}})
    assert (reserved.status_code, fields_of(reserved)) == (400, ["metadata.agent_id"])


def test_delete_one_and_then_there_is_nothing(client: Client) -> None:
    (stored,) = add(client, user_id="alice")
    path = f"/v1/memories/{stored['id']}/"
    assert call(client, "delete", f"{path}?delete_linked=true").status_code == 200
    for method, body in (("get", None), ("put", {"text": "x"}), ("delete", None)):
        assert call(client, method, path, body).status_code == 404


def test_delete_all_of_a_run_or_of_a_user(client: Client) -> None:
    for user, run in (("alice", "r1"), ("alice", "r2"), ("bob", "r1")):
        add(client, f"{user} {run}", user_id=user, run_id=run)
    deleted = call(client, "delete", "/v1/memories/?user_id=alice&run_id=r1").json()
    assert deleted["deleted"] == 1 and stored_texts(ALICE) == ["alice r2"]
    assert call(client, "delete", "/v1/memories/?user_id=alice").json()["deleted"] == 1
    assert stored_texts(ALICE) == [] and stored_texts("service:acme:bob") == ["bob r1"]
    assert call(client, "delete", "/v2/entities/user/bob/").status_code == 200
    assert stored_texts("service:acme:bob") == []


def test_a_call_that_names_nobody_deletes_nothing(client: Client) -> None:
    add(client, user_id="alice")
    person = mem0_client(make_token(make_user()))
    add(person, "mine")
    for each, query in ((client, ""), (client, "?run_id=r"), (client, "?user_id=*"), (person, ""), (person, "?page=1")):
        refused = call(each, "delete", f"/v1/memories/{query}")
        assert refused.status_code == 400 and fields_of(refused)
    assert call(person, "delete", "/v1/memories/?user_id=alice").status_code == 403
    assert stored_texts(ALICE) and listed(person)
    assert call(person, "delete", "/v1/memories/?user_id=*").json()["deleted"] == 1
    assert listed(person) == []


def test_pages_are_numbered_and_complete(client: Client) -> None:
    for number in range(5):
        add(client, f"memory {number}", user_id="alice")
    add(client, "not of alice", user_id="bob")
    path, seen = "/v3/memories/?page=1&page_size=2", []
    while path:
        page = call(client, "post", path, {"filters": {"user_id": "alice"}}).json()
        assert page["count"] == 5
        seen += [each["memory"] for each in page["results"]]
        path = page["next"] and page["next"].partition("/api/mem0")[2]
    assert seen == [f"memory {number}" for number in reversed(range(5))]
    assert page["previous"].endswith("?page=2&page_size=2")
    beyond = call(client, "post", "/v3/memories/?page=9", {"filters": {"user_id": "alice"}}).json()
    assert beyond["results"] == [] and beyond["count"] == 5 and beyond["next"] is None
    for query in ("?page=0", "?page_size=101", "?page=x", "?page=1&page=2", "?size=3"):
        assert call(client, "post", f"/v3/memories/{query}", {"filters": {"user_id": "alice"}}).status_code == 400


def test_a_page_that_an_answer_has_no_room_for_is_refused_not_shortened(client: Client, settings: Any) -> None:
    for number in range(3):
        add(client, f"memory {number} " + "x" * 500, user_id="alice")
    settings.MEMORY_MAX_ANSWER_BYTES = 1200
    refused = call(client, "post", "/v3/memories/?page_size=3", {"filters": {"user_id": "alice"}})
    assert (refused.status_code, fields_of(refused)) == (413, ["page_size"])
    assert call(client, "post", "/v3/memories/?page_size=1", {"filters": {"user_id": "alice"}}).status_code == 200


def test_batches(client: Client) -> None:
    ids = [add(client, f"memory {number}", user_id="alice")[0]["id"] for number in range(3)]
    changes = [{"memory_id": each, "text": f"changed {n}"} for n, each in enumerate(ids)]
    assert call(client, "put", "/v1/batch/", {"memories": changes}).status_code == 200
    assert stored_texts(ALICE) == ["changed 0", "changed 1", "changed 2"]
    (other,) = add(client, "bob's", user_id="bob")
    mixed = [{"memory_id": ids[0], "text": "x"}, {"memory_id": other["id"], "text": "x"}]
    refused = call(client, "put", "/v1/batch/", {"memories": mixed})
    assert (refused.status_code, fields_of(refused)) == (400, ["memories"])
    missing = [{"memory_id": ids[0], "text": "x"}, {"memory_id": "forged", "text": "x"}]
    assert call(client, "put", "/v1/batch/", {"memories": missing}).status_code == 404
    assert stored_texts(ALICE) == ["changed 0", "changed 1", "changed 2"]
    gone = call(client, "delete", "/v1/batch/", {"memories": [{"memory_id": each} for each in [*ids[:2], "forged"]]})
    assert gone.json()["deleted"] == 2 and stored_texts(ALICE) == ["changed 2"]
    assert call(client, "delete", "/v1/batch/", {"memories": [{"memory_id": "forged"}]}).status_code == 404


def test_a_threshold_is_compared_with_the_score(client: Client) -> None:
    add(client, "The spare key is under the blue flower pot.", user_id="alice")
    add(client, "Photosynthesis happens in chloroplasts.", user_id="alice")
    body = {"query": "Where is the spare key?", "filters": {"user_id": "alice"}}
    every = call(client, "post", "/v3/memories/search/", body).json()["results"]
    best, worst = every[0]["score"], every[-1]["score"]
    assert best > worst
    above = call(client, "post", "/v3/memories/search/", {**body, "threshold": (best + worst) / 2}).json()["results"]
    assert [each["memory"] for each in above] == ["The spare key is under the blue flower pot."]


def test_without_an_embedding_a_threshold_cannot_be_kept(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    add(client, "The spare key is under the pot.", user_id="alice")

    def away(query: str) -> Any:
        raise EmbeddingModelUnavailable("away", NoEmbedding.TIMEOUT)

    monkeypatch.setattr("memory.search.retrieval.embed_query", away)
    body = {"query": "spare key", "filters": {"user_id": "alice"}}
    plain = call(client, "post", "/v3/memories/search/", body).json()
    assert plain["degraded"] == "embedding_timeout" and plain["results"][0]["score"] == 0
    assert call(client, "post", "/v3/memories/search/", {**body, "threshold": 0.1}).status_code == 503


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/v1/entities/"),
        ("delete", "/v2/entities/agent/planner/"),
        ("get", "/v2/entities/user/alice/profile/"),
        ("post", "/v2/profiles/jobs/"),
        ("get", "/v2/profiles/settings/"),
        ("post", "/v1/exports/"),
        ("post", "/v1/exports/get/"),
        ("post", "/v1/summary/"),
        ("post", "/v1/feedback/"),
        ("get", "/v1/memories/x/history/"),
        ("get", "/api/v1/orgs/organizations/o/projects/p/"),
        ("post", "/api/v1/webhooks/projects/p/"),
    ],
)
def test_what_is_not_served_says_so(method: str, path: str, client: Client) -> None:
    refused = call(client, method, path, None if method in ("get", "delete") else {"a": 1})
    assert refused.status_code == 501 and refused.json()["detail"].startswith("Not served: ")
    assert refused["Content-Type"] == "application/problem+json"
    assert call(mem0_client(None), method, path).status_code == 401


def test_an_unknown_address_is_404(client: Client) -> None:
    assert call(client, "get", "/v9/anything/").status_code == 404


def test_one_request_one_effect(client: Client, secret: str) -> None:
    body = {"messages": [{"role": "user", "content": "Once."}], "user_id": "alice"}
    first, second = (call(client, "post", "/v3/memories/add/", body, **{"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json() == second.json() and second["Idempotency-Replayed"] == "true"
    assert stored_texts(ALICE) == ["Once."]
    other = call(client, "post", "/v3/memories/add/", {**body, "user_id": "bob"}, **{"Idempotency-Key": "k"})
    assert "Idempotency-Replayed" not in other
    path = f"/v1/memories/{first.json()['results'][0]['id']}/"
    gone = [call(client, "delete", path, **{"Idempotency-Key": "d"}) for _ in range(2)]
    assert [each.status_code for each in gone] == [200, 200]


def test_both_doors_show_the_same_memory(client: Client, secret: str) -> None:
    add(client, "Stored by mem0.", user_id="alice", run_id="r1")
    ours = api_client(secret, user="alice")
    (chunk,) = ours.get("/api/v1/memories").json()["memories"]
    assert chunk["metadata"] == {"run_id": "r1"} and chunk["source"] == "mem0"
    query = {"query": "mem0", "filter": {"metadata.run_id": "r1"}}
    assert ours.post("/api/v1/memories/query", query, content_type="application/json").json()["matches"]
