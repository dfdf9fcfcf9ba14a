"""Changing memories and documents over HTTP, reading a document, and reading and deleting many at once."""

import uuid
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client

from memory.verbs import patching
from tests.factories import API, index, person_client, vector

pytestmark = pytest.mark.django_db
MEMORIES = f"{API}/memories"


def patch(client: Client, path: str, body: Any, content_type: str = "application/merge-patch+json") -> Any:
    return client.patch(f"{API}/{path}", body, content_type=content_type)


def post(client: Client, path: str, body: Any) -> Any:
    return client.post(f"{API}/{path}", body, content_type="application/json")


def talk(client: Client, *texts: str, **fields: Any) -> list[str]:
    """Store a document of these chunks; returns their ids."""
    chunks = [{"text": text, "embedding": vector(place)} for place, text in enumerate(texts)]
    body = {"doc_id": "talk", "chunks": chunks, **fields}
    (stored,) = post(client, "memories/index", body).json()["documents"]
    return list(stored["chunk_ids"])


# --- PATCH -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("content_type", ["application/json", "application/merge-patch+json"])
def test_a_memory_changes_and_keeps_its_id_and_its_time(content_type: str) -> None:
    client = person_client()
    (memory,) = talk(client, "hello", metadata={"a": 1, "b": {"c": 2}})
    before = client.get(f"{MEMORIES}/{memory}").json()
    body = {"text": "goodbye", "embedding": vector(3), "metadata": {"a": None, "b": {"d": [1]}}}
    answer = patch(client, f"memories/{memory}", body, content_type)
    assert answer.status_code == 200
    assert answer.json() == {**before, "text": "goodbye", "metadata": {"b": {"c": 2, "d": [1]}}}
    assert client.get(f"{MEMORIES}/{memory}").json() == answer.json()


def test_a_document_changes_as_a_whole() -> None:
    client = person_client()
    ids = talk(client, "one", "two", metadata={"a": 1})
    answer = patch(client, "documents/talk", {"metadata": {"b": 2}, "source": "mail"})
    assert answer.json() == {"doc_id": "talk", "chunk_ids": ids, "embedded": 0}
    chunks = client.get(f"{API}/documents/talk").json()["chunks"]
    assert [(chunk["metadata"], chunk["source"]) for chunk in chunks] == [({"a": 1, "b": 2}, "mail")] * 2


def test_a_new_text_of_a_document_is_embedded_and_found() -> None:
    client = person_client()
    ids = talk(client, "Interest rates rose.", "They may rise again.")
    answer = patch(client, "documents/talk", {"text": "The cat sat on the mat."}).json()
    assert answer == {"doc_id": "talk", "chunk_ids": ids[:1], "embedded": 1}
    (match,) = post(client, "memories/query", {"query": "Where does the pet rest?"}).json()["matches"]
    assert (match["id"], match["text"]) == (ids[0], "The cat sat on the mat.")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"text": None}, 400, "text"),
        ({"text": "  "}, 400, "text"),
        ({"text": "a\0"}, 400, "text"),
        ({"text": ["a"]}, 400, "text"),
        ({"text": "x" * 2_000_000}, 413, "text"),
        ({"embedding": [1, 2]}, 400, "embedding"),
        ({"metadata": []}, 400, "metadata"),
        ({"metadata": "x"}, 400, "metadata"),
        ({"metadata": {"a": "\ud800"}}, 400, "metadata"),
        ({"metadata": {"a": "x" * 20_000}}, 413, "metadata"),
        ({"id": "4fe9c1dd-4ae5-4a3b-9bb0-7a20e0b0a3c1"}, 400, "id"),
        ({"created_at": "2020-01-01T00:00:00Z"}, 400, "created_at"),
        ({"chunk_index": 5}, 400, "chunk_index"),
        ([], 400, "(body)"),
        (b'"text"', 400, "(body)"),
        (b"null", 400, "(body)"),
    ],
)
def test_what_cannot_be_changed_is_named_and_nothing_is_written(body: Any, status: int, field: str) -> None:
    client = person_client()
    (memory,) = talk(client, "hello", metadata={"a": 1})
    before = client.get(f"{MEMORIES}/{memory}").json()
    answer = patch(client, f"memories/{memory}", body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (status, field)
    if field != "embedding":
        answer = patch(client, "documents/talk", body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (status, field)
    assert client.get(f"{MEMORIES}/{memory}").json() == before


def test_a_body_that_is_no_json_or_of_another_type() -> None:
    client = person_client()
    (memory,) = talk(client, "hello")
    assert patch(client, f"memories/{memory}", b"{", "application/merge-patch+json").status_code == 400
    assert patch(client, f"memories/{memory}", b'{"text": "a", "text": "b"}').status_code == 400
    assert patch(client, f"memories/{memory}", b"text=a", "application/x-www-form-urlencoded").status_code == 415


def test_anothers_memory_is_not_there() -> None:
    (memory,) = talk(person_client("alice"), "Alice's")
    bob = person_client("bob")
    for path in (f"memories/{memory}", f"memories/{uuid.uuid4()}", "documents/talk", f"documents/{quote('a/b')}"):
        assert patch(bob, path, {"metadata": {"a": 1}}).status_code == 404
    assert bob.get(f"{API}/documents/talk").status_code == 404
    assert post(bob, "memories/delete", {"ids": [memory]}).json() == {"deleted": 0}
    found = post(bob, "memories/get", {"ids": [memory]}).json()
    assert found == {"memories": [], "missing": [memory], "left_out": [], "integrity_failures": 0}


def test_a_change_that_others_keep_undoing_is_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    client = person_client()
    (memory,) = talk(client, "hello")
    monkeypatch.setattr(patching, "ATTEMPTS", 0)
    answer = patch(client, f"memories/{memory}", {"text": "new"})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:sealed-memory:conflict")


def test_changes_are_counted_as_what_is_stored(settings: Any) -> None:
    client = person_client()
    (memory,) = talk(client, "hello")
    settings.MEMORY_THROTTLE_INDEX = "2/h"
    assert [patch(client, f"memories/{memory}", {}).status_code for _ in range(3)] == [200, 200, 429]
    assert client.get(f"{MEMORIES}/{memory}").status_code == 200


# --- A document ------------------------------------------------------------------------------------------------------
def test_a_document_is_read_in_its_order_page_by_page() -> None:
    client = person_client()
    ids = talk(client, *"abcde")
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get(f"{API}/documents/talk", {"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        assert (page["doc_id"], page["integrity_failures"]) == ("talk", 0) and len(page["chunks"]) <= 2
        seen += [chunk["id"] for chunk in page["chunks"]]
        cursor = page["next_cursor"]
    assert seen == ids


@pytest.mark.parametrize(
    ("parameters", "field"),
    [({"cursor": "x"}, "cursor"), ({"cursor": "_" * 21 + "w"}, "cursor"), ({"limit": 0}, "limit"), ({"n": 1}, "n")],
)
def test_parameters_of_a_document_that_are_wrong(parameters: dict[str, Any], field: str) -> None:
    client = person_client()
    talk(client, "a")
    answer = client.get(f"{API}/documents/talk", parameters)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)


def test_pages_of_a_document_end_early_for_their_bytes(settings: Any) -> None:
    client = person_client()
    talk(client, "a" * 900, "b" * 900, "c")
    settings.MEMORY_MAX_ANSWER_BYTES = 1_200
    first = client.get(f"{API}/documents/talk").json()
    assert [chunk["chunk_index"] for chunk in first["chunks"]] == [0]
    second = client.get(f"{API}/documents/talk", {"cursor": first["next_cursor"]}).json()
    assert ([chunk["chunk_index"] for chunk in second["chunks"]], second["next_cursor"]) == ([1, 2], None)


# --- Many ------------------------------------------------------------------------------------------------------------
def test_many_are_read_in_the_order_asked_for(settings: Any) -> None:
    client = person_client()
    one, two, three = talk(client, "one", "two", "three")
    missing = str(uuid.uuid4())
    found = post(client, "memories/get", {"ids": [three, missing, one, three]}).json()
    assert [memory["text"] for memory in found["memories"]] == ["three", "one"]
    assert (found["missing"], found["left_out"]) == ([missing], [])
    settings.MEMORY_MAX_ANSWER_BYTES = 1
    found = post(client, "memories/get", {"ids": [two, one, three]}).json()
    assert [memory["id"] for memory in found["memories"]] == [two]
    assert (found["missing"], found["left_out"]) == ([], [one, three])


def test_many_are_deleted_at_once() -> None:
    client = person_client()
    one, two, three = talk(client, "one", "two", "three")
    assert post(client, "memories/delete", {"ids": [one, str(uuid.uuid4()), three, one]}).json() == {"deleted": 2}
    assert [memory["id"] for memory in client.get(MEMORIES).json()["memories"]] == [two]


@pytest.mark.parametrize("verb", ["get", "delete"])
@pytest.mark.parametrize(
    ("ids", "status"),
    [
        ([], 400),
        ("x", 400),
        ([1], 400),
        (["x"], 400),
        ([None], 400),
        (["urn:uuid:4fe9c1dd-4ae5-4a3b-9bb0-7a20e0b0a3c1"], 400),
        (["4fe9c1dd-4ae5-4a3b-9bb0-7a20e0b0a3c1"] * 101, 413),
    ],
)
def test_ids_that_are_none(verb: str, ids: Any, status: int) -> None:
    answer = post(person_client(), f"memories/{verb}", {"ids": ids})
    assert answer.status_code == status
    assert answer.json()["errors"][0]["field"].startswith("ids")


def test_only_ones_own_index_is_touched() -> None:
    client = person_client()
    stored = index(client, "kept")
    (memory,) = talk(client, "deleted")
    post(client, "memories/delete", {"ids": [memory]})
    answer = post(client, "memories/query", {"query": "?", "embedding": vector(0)}).json()
    assert [match["id"] for match in answer["matches"]] == stored["chunk_ids"]


def test_a_zone_that_postgres_takes_in_no_text() -> None:
    client = person_client()
    (memory,) = talk(client, "hello")
    far = "2022-06-05T10:00:00-18:10"
    answer = patch(client, f"memories/{memory}", {"occurred_at": far})
    assert (answer.status_code, answer.json()["occurred_at"]) == (200, far)
    listed = client.get(MEMORIES, {"occurred_after": far, "occurred_before": "2022-06-05T10:00:01-18:10"})
    assert [each["id"] for each in listed.json()["memories"]] == [memory]
    assert client.get(MEMORIES, {"sort": "occurred_at", "occurred_after": far}).status_code == 200
