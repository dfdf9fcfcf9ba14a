"""Storing, asking, listing, reading and deleting over HTTP, as users do."""

import json
import uuid
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.test import Client

from memory.access.identity import person_user_id
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from tests.factories import API, index, person_client, vector

pytestmark = pytest.mark.django_db
MEMORIES = f"{API}/memories"


def post(client: Client, path: str, body: Any) -> Any:
    return client.post(f"{API}/{path}", body, content_type="application/json")


def listed(client: Client, **parameters: Any) -> list[dict[str, Any]]:
    return client.get(MEMORIES, parameters).json()["memories"]


def test_text_comes_back_as_the_answer_with_everything_stored_beside_it() -> None:
    client = person_client()
    stored = index(client, "the cat sat", doc_id="d", source="chat", metadata={"turn": 3}, embedding=vector(0))
    index(client, "something else", embedding=vector(7))
    answer = post(client, "memories/query", {"query": "cat?", "embedding": vector(0), "top_k": 1}).json()
    (match,) = answer["matches"]
    assert match["id"] == stored["chunk_ids"][0]
    assert (match["doc_id"], match["source"], match["chunk_index"]) == ("d", "chat", 0)
    assert (match["text"], match["metadata"]) == ("the cat sat", {"turn": 3})
    assert match["retrieval_score"] == pytest.approx(1.5, abs=1e-6)  # cosine 1, and the best keyword match
    assert answer["integrity_failures"] == 0
    assert all(milliseconds >= 0 for milliseconds in answer["timings_ms"].values())


def test_service_embeds_text_and_query_itself() -> None:
    client = person_client()
    body = {"documents": [{"text": "The cat sat on the mat."}, {"text": "Interest rates rose by a quarter point."}]}
    assert post(client, "memories/index", body).status_code == 200
    answer = post(client, "memories/query", {"query": "Where does the pet rest?"}).json()
    assert answer["matches"][0]["text"] == "The cat sat on the mat."


def test_query_keeps_to_its_filters() -> None:
    client = person_client()
    index(client, "a", doc_id="a", source="mail")
    index(client, "b", doc_id="b", source="chat")
    ask = {"query": "?", "embedding": vector(0)}
    assert [m["text"] for m in post(client, "memories/query", {**ask, "source": "chat"}).json()["matches"]] == ["b"]
    assert [m["text"] for m in post(client, "memories/query", {**ask, "doc_id": "a"}).json()["matches"]] == ["a"]


def test_batch_answers_in_its_order_and_makes_up_missing_doc_ids() -> None:
    client = person_client()
    documents = [
        {"doc_id": "turns", "chunks": ["hello", {"text": "hi", "embedding": vector(1)}]},
        {"text": "alone", "embedding": vector(2)},
    ]
    turns, alone = post(client, "memories/index", {"documents": documents}).json()["documents"]
    assert turns["doc_id"] == "turns" and len(turns["chunk_ids"]) == 2
    assert uuid.UUID(alone["doc_id"]) and len(alone["chunk_ids"]) == 1
    assert [(m["chunk_index"], m["text"]) for m in listed(client, doc_id="turns")] == [(1, "hi"), (0, "hello")]


def test_long_text_is_split_and_nothing_of_it_is_lost() -> None:
    client = person_client()
    sentences = [f"Sentence number {number} tells of something that happened." for number in range(120)]
    (stored,) = post(client, "memories/index", {"doc_id": "long", "text": " ".join(sentences)}).json()["documents"]
    assert len(stored["chunk_ids"]) > 1
    text = " ".join(memory["text"] for memory in reversed(listed(client, doc_id="long")))
    assert text.split() == " ".join(sentences).split()


def test_text_with_an_embedding_stays_in_one_piece() -> None:
    stored = index(person_client(), "word " * 2000, embedding=vector(0))
    assert len(stored["chunk_ids"]) == 1


def test_upsert_replaces_the_whole_document() -> None:
    client = person_client()
    post(client, "memories/index", {"doc_id": "d", "chunks": [{"text": t, "embedding": vector()} for t in "abc"]})
    assert index(client, "new", doc_id="d")["replaced"] == 3
    assert [memory["text"] for memory in listed(client)] == ["new"]


def test_pages_show_every_memory_once_and_end() -> None:
    client = person_client()
    for number in range(5):
        index(client, f"m{number}")
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get(MEMORIES, {"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        assert len(page["memories"]) <= 2
        seen += [memory["text"] for memory in page["memories"]]
        cursor = page["next_cursor"]
    assert seen == ["m4", "m3", "m2", "m1", "m0"]


def test_listing_filters() -> None:
    client = person_client()
    index(client, "a", doc_id="a", source="mail")
    index(client, "b", doc_id="b")
    assert [memory["text"] for memory in listed(client, source="mail")] == ["a"]
    assert [memory["text"] for memory in listed(client, source="")] == ["b"]
    assert [memory["text"] for memory in listed(client, doc_id="b")] == ["b"]


def test_a_list_takes_a_querys_filter_as_json() -> None:
    client = person_client()
    for name in ("chat", "mail", "note"):
        index(client, f"from {name}", source=name, embedding=vector(0))
    wanted = json.dumps({"OR": [{"source": "note"}, {"source": {"in": ["chat"]}}]})
    assert [memory["source"] for memory in listed(client, filter=wanted)] == ["note", "chat"]
    (first,) = listed(client, filter=wanted, limit=1)
    page = client.get(MEMORIES, {"filter": wanted, "limit": 1}).json()
    assert page["memories"] == [first]
    assert [each["source"] for each in listed(client, filter=wanted, cursor=page["next_cursor"])] == ["chat"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"source": "a", "source": "b"}', '{"size": 1}', "NaN"])
def test_a_filter_of_a_list_that_is_none_is_refused_by_name(text: str) -> None:
    refused = person_client().get(MEMORIES, {"filter": text})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["field"].startswith("filter")


def test_one_memory_is_read_and_deleted() -> None:
    client = person_client()
    (chunk_id,) = index(client, "a")["chunk_ids"]
    assert client.get(f"{MEMORIES}/{chunk_id}").json()["text"] == "a"
    assert client.delete(f"{MEMORIES}/{chunk_id}").json() == {"deleted": 1}
    assert client.get(f"{MEMORIES}/{chunk_id}").status_code == 404
    assert client.delete(f"{MEMORIES}/{chunk_id}").status_code == 404


@pytest.mark.parametrize("doc_id", ["plain", "a/b c", "https://example.com/?q=1#x", "ünï", "..", "100%"])
def test_document_is_deleted_by_any_id(doc_id: str) -> None:
    from urllib.parse import quote

    client = person_client()
    index(client, "a", doc_id=doc_id)
    index(client, "b", doc_id="other")
    path = f"{API}/documents/{quote(doc_id, safe='')}"
    assert client.delete(path).json() == {"deleted": 1}
    assert client.delete(path).status_code == 404
    assert [memory["text"] for memory in listed(client)] == ["b"]


def test_anothers_memory_answers_exactly_as_a_missing_one() -> None:
    alice, bob = person_client("alice"), person_client("bob")
    (chunk_id,) = index(alice, "hers", doc_id="hers")["chunk_ids"]
    for verb in (bob.get, bob.delete):
        theirs, missing = verb(f"{MEMORIES}/{chunk_id}"), verb(f"{MEMORIES}/{uuid.uuid4()}")
        assert (theirs.status_code, theirs.content) == (404, missing.content)
    theirs, missing = bob.delete(f"{API}/documents/hers"), bob.delete(f"{API}/documents/nobodys")
    assert (theirs.status_code, theirs.content) == (404, missing.content)
    assert [memory["text"] for memory in listed(alice)] == ["hers"]


def test_same_doc_id_of_two_users_are_two_documents() -> None:
    alice, bob = person_client("alice"), person_client("bob")
    index(alice, "hers", doc_id="d")
    assert index(bob, "his", doc_id="d")["replaced"] == 0
    assert [memory["text"] for memory in listed(alice)] == ["hers"]


def test_erasure_gives_an_honest_receipt_and_spares_others() -> None:
    alice, bob = person_client("alice"), person_client("bob")
    index(alice, "a")
    index(alice, "b")
    index(bob, "c")
    receipt = alice.delete(MEMORIES).json()
    assert receipt["deleted"]["memory_chunks"] == 2
    assert receipt["deleted"]["memory_vectors"] == 2
    assert set(receipt["remaining"].values()) == {0}
    for where in ("write-ahead log", "dead tuples", "backups"):
        assert where in receipt["note"]
    assert listed(alice) == []
    assert [memory["text"] for memory in listed(bob)] == ["c"]


def test_erasure_takes_no_filter_that_it_would_ignore() -> None:
    client = person_client()
    index(client, "a")
    assert client.delete(f"{MEMORIES}?source=chat").status_code == 400
    assert len(listed(client)) == 1


@pytest.mark.usefixtures("readable_names")
@pytest.mark.parametrize("doc_id", ["a\nb", "\n", "a\r\n/b"])
def test_a_document_whose_id_holds_line_breaks_can_be_deleted(doc_id: str) -> None:
    """None is stored any more; what older versions stored must not stay for ever."""
    client = person_client()
    index(client, doc_id="d")
    with tenant_transaction(person_user_id(User.objects.get().pk)):
        MemoryChunk.objects.update(doc_id=doc_id)
    response = client.delete(f"{API}/documents/{quote(doc_id, safe='')}")
    assert (response.status_code, response.json()) == (200, {"deleted": 1})
