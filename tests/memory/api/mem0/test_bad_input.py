"""What is wrong is named, nothing of it is repeated, and nothing is written."""

from typing import Any

import pytest
from django.test import Client

from database.roles import census
from tests.factories import make_service, make_token, make_user, stored_texts
from tests.memory.api.mem0.calls import add, call, fields_of, listed, mem0_client

pytestmark = pytest.mark.django_db
ALICE = "service:acme:alice"
SAID = [{"role": "user", "content": "x"}]
ADD, SEARCH, LIST = "/v3/memories/add/", "/v3/memories/search/", "/v3/memories/"


@pytest.fixture
def client() -> Client:
    return mem0_client(make_service())


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "a text"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"infer": "yes"}, "infer"),
        ({"custom_categories": [{"a": "b"}]}, "custom_categories"),
        ({"custom_instructions": "Only dates."}, "custom_instructions"),
        ({"structured_data_schema": {}}, "structured_data_schema"),
        ({"includes": "x"}, "includes"),
        ({"enable_graph": True}, "enable_graph"),
        ({"immutable": True}, "immutable"),
        ({"output_format": "v1.0"}, "output_format"),
        ({"metadata": {"run_id": "r"}}, "metadata.run_id"),
        ({"metadata": []}, "metadata"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": 1e300}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
        ({"expiration_date": "2026-02-30"}, "expiration_date"),
        ({"expiration_date": "9999-12-31"}, "expiration_date"),
        ({"expiration_date": 20260101}, "expiration_date"),
        ({"agent_id": ["a"]}, "agent_id"),
        ({"agent_id": ""}, "agent_id"),
        ({"agent_id": "*"}, "filters"),
        ({"filters": {"metadata": {"run_id": "r"}}, "run_id": "q"}, "run_id"),
        ({"filters": {"OR": [{"run_id": "r"}]}}, "filters"),
        ({"filters": {"created_at": {"gte": "2026-01-01"}}}, "filters"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_an_add_that_is_wrong_names_the_field(fields: Any, named: str, client: Client) -> None:
    refused = call(client, "post", ADD, {"messages": SAID, "user_id": "alice", **fields})
    assert (refused.status_code, fields_of(refused)) == (400, [named]), refused.content
    assert stored_texts(ALICE) == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"query": " "}, "query"),
        ({"top_k": 101}, "top_k"),
        ({"top_k": "3"}, "top_k"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"fields": ["memory"]}, "fields"),
        ({"categories": ["a"]}, "categories"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"show_expired": True}, "show_expired"),
        ({"keyword_search": False}, "keyword_search"),
        ({"limit": 3}, "limit"),
    ],
)
def test_a_search_that_is_wrong_names_the_field(fields: Any, named: str, client: Client) -> None:
    refused = call(client, "post", SEARCH, {"query": "x", "filters": {"user_id": "alice"}, **fields})
    assert (refused.status_code, fields_of(refused)) == (400, [named]), refused.content


HOSTILE = [
    ("new\nline", "user_id"),
    ("nul\0", "user_id"),
    (" alice", "user_id"),
    ("", "user_id"),
    ("é" * 128, "user_id"),
    ("\ud800", "user_id"),
    (["alice"], "user_id"),
    ({"in": ["alice", "bob"]}, "user_id"),
    (42, "user_id"),
    (None, "user_id"),
]


@pytest.mark.parametrize(("user", "named"), HOSTILE)
@pytest.mark.parametrize("in_filters", [True, False])
def test_a_hostile_user_is_refused_by_name(user: Any, named: str, in_filters: bool, client: Client) -> None:
    fields = {"filters": {"user_id": user}} if in_filters else {"user_id": user}
    for path, body in ((ADD, {"messages": SAID}), (SEARCH, {"query": "x"}), (LIST, {})):
        refused = call(client, "post", path, {**body, **fields})
        assert refused.status_code == 400 and fields_of(refused)[0].endswith(named), refused.content
    with census() as cursor:
        assert cursor.execute("SELECT count(*) FROM tenants").fetchone() == (0,)


@pytest.mark.parametrize("user", ["service:other:42", "person:1", "日本語", "a/b", "..", "a" * 242, "x/profile"])
def test_a_strange_user_is_a_user_of_this_service(user: str, client: Client) -> None:
    add(client, "A memory.", user_id=user)
    assert stored_texts(f"service:acme:{user}") == ["A memory."]
    (one,) = listed(client, filters={"AND": [{"user_id": user}]})
    assert one["user_id"] == user
    assert call(client, "get", f"/v1/memories/{one['id']}/").json()["memory"] == "A memory."
    assert stored_texts("service:other:42") == [] and stored_texts("person:1") == []


def test_a_user_in_an_address_may_hold_anything_a_name_may(client: Client) -> None:
    add(client, "A memory.", user_id="a/b")
    assert call(client, "delete", "/v2/entities/user/a%2Fb/").status_code == 200
    assert stored_texts("service:acme:a/b") == []
    add(client, "A memory.", user_id="x/profile")
    add(client, "Another.", user_id="x")
    assert call(client, "delete", "/v2/entities/user/x%2Fprofile/").status_code == 200
    assert stored_texts("service:acme:x/profile") == [] and stored_texts("service:acme:x") == ["Another."]
    assert call(client, "get", "/v2/entities/user/x/").status_code == 405
    assert call(client, "delete", "/v2/entities/user/a%0Ab/").status_code == 400
    assert call(client, "delete", "/v2/entities/user/*/").status_code == 400


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ([], "filters"),
        ({"OR": [{"user_id": "alice"}, {"run_id": "r"}]}, "filters.OR[0].user_id"),
        ({"NOT": {"user_id": "bob"}, "user_id": "alice"}, "filters.NOT.user_id"),
        ({"AND": [{"user_id": "alice"}, {"user_id": "bob"}]}, "filters.AND[1].user_id"),
        ({"user_id": {"in": ["alice", "bob"]}}, "filters.user_id"),
        ({"user_id": "*"}, "user_id"),
        ({"run_id": "r"}, "user_id"),
        ({"user_id": "alice", "categories": {"in": ["a"]}}, "filters.categories"),
        ({"user_id": "alice", "keywords": {"icontains": "a"}}, "filters.keywords"),
        ({"user_id": "alice", "memory_ids": ["a"]}, "filters.memory_ids"),
        ({"user_id": "alice", "updated_at": {"gte": "2026-01-01"}}, "filters.updated_at"),
        ({"user_id": "alice", "a secret": 1}, "filters.(unnamed)"),
        ({"user_id": "alice", "run_id": {"contains": "r"}}, "filters.run_id.contains"),
        ({"user_id": "alice", "run_id": {"in": ["*"]}}, "filters.run_id"),
        ({"user_id": "alice", "run_id": 7}, "filters.run_id"),
        ({"user_id": "alice", "run_id": {}}, "filters.run_id"),
        ({"user_id": "alice", "created_at": "2026-01-01"}, "filters.created_at"),
        ({"user_id": "alice", "created_at": {"gte": "soon"}}, "filters.created_at.gte"),
        ({"user_id": "alice", "timestamp": {"gte": 1e300}}, "filters.timestamp.gte"),
        ({"user_id": "alice", "metadata": {"kind": "note"}}, "filters.metadata.kind"),
        ({"user_id": "alice", "metadata": {"run_id": {"contains": "n"}}}, "filters.metadata.run_id.contains"),
        ({"user_id": "alice", "metadata": "x"}, "filters.metadata"),
        ({"AND": []}, "filters.AND"),
        ({"AND": {"user_id": "alice"}}, "filters.AND"),
        ({"user_id": "alice", "NOT": [{"run_id": "a"}, {"run_id": "b"}]}, "filters.NOT"),
        ({"user_id": "alice", "AND": [{"run_id": {"in": ["r"] * 1001}}]}, "filters.AND[0].run_id"),
        ({"user_id": "alice", "AND": [{"run_id": "r"}] * 101}, "filter"),
    ],
)
def test_a_filter_that_cannot_be_followed_names_its_place(filters: Any, named: str, client: Client) -> None:
    add(client, "A memory.", user_id="alice")
    for path, body in ((SEARCH, {"query": "x"}), (LIST, {})):
        refused = call(client, "post", path, {**body, "filters": filters})
        assert (refused.status_code, fields_of(refused)) == (400, [named]), refused.content
        assert "secret" not in refused.content.decode()


def test_a_deep_filter_is_refused(client: Client) -> None:
    filters: Any = {"run_id": "r"}
    for _ in range(40):
        filters = {"NOT": filters}
    refused = call(client, "post", LIST, {"user_id": "alice", "filters": filters})
    assert (refused.status_code, fields_of(refused)) == (400, ["filters"])


def test_a_person_names_no_user(client: Client) -> None:
    person = mem0_client(make_token(make_user()))
    for path, body in ((ADD, {"messages": SAID}), (SEARCH, {"query": "x"}), (LIST, {})):
        refused = call(person, "post", path, {**body, "user_id": "alice"})
        assert (refused.status_code, fields_of(refused)) == (403, ["user_id"])
        assert call(person, "post", path, body).status_code == 200
    assert len(listed(person, filters={"user_id": "*"})) == 1


def test_the_header_of_the_other_doors_names_nobody_here(client: Client) -> None:
    refused = call(client, "post", LIST, {"user_id": "alice"}, **{"X-Memory-User": "alice"})
    assert (refused.status_code, fields_of(refused)) == (400, ["X-Memory-User"])


def test_bodies_that_are_no_json_object(client: Client) -> None:
    for content in ("", "[]", "7", "null", '{"user_id": "a", "user_id": "b"}', "{"):
        refused = client.post(f"/api/mem0{LIST}", content, content_type="application/json")
        assert refused.status_code == 400
        assert refused["Content-Type"] == "application/problem+json"


def test_a_body_beyond_the_limit_is_413(client: Client, settings: Any) -> None:
    settings.MEMORY_MAX_BODY_BYTES = 1_000
    body = {"messages": [{"role": "user", "content": "x" * 2_000}], "user_id": "alice"}
    assert call(client, "post", ADD, body).status_code == 413


def test_malformed_calls_count_for_their_token(client: Client, settings: Any) -> None:
    settings.MEMORY_THROTTLE_TOKEN = "2/min"
    assert [call(client, "post", LIST, {"surprise": 1}).status_code for _ in range(3)] == [400, 400, 429]
