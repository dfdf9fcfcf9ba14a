"""The Python client against the real service, over HTTP."""

import io
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.management import call_command
from sealed_memory import (
    AsyncClient,
    Chunk,
    Client,
    Document,
    InvalidRequest,
    NotFound,
    StillRunning,
    TooLarge,
    Unauthenticated,
)

from memory.operations.worker import Worker
from tests.factories import make_service, make_token, make_user

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "The spare key is under the blue flower pot."


@pytest.fixture
def memory(live_server: Any) -> Any:
    with Client(live_server.url, token=make_token(make_user())) as client:
        yield client


def test_the_walk_through_the_verbs(memory: Client) -> None:
    (stored,) = memory.index(KEY, doc_id="home/key", source="chat", metadata={"kind": "note"})
    (memory_id,) = stored.chunk_ids
    answer = memory.query("Where is the spare key?", top_k=3, source="chat")
    assert [match.text for match in answer.matches] == [KEY]
    assert [each.id for each in memory.document("home/key")] == [memory_id]
    assert memory.get(memory_id).metadata == {"kind": "note"}
    changed = memory.update(memory_id, text="The key is at the neighbour's.", metadata={"kind": None, "seen": True})
    assert (changed.id, changed.metadata) == (memory_id, {"seen": True})
    assert memory.delete_document("home/key") == 1
    with pytest.raises(NotFound):
        memory.get(memory_id)


def test_pages_are_followed(memory: Client) -> None:
    memory.index(documents=[Document(text=f"memory {number}", doc_id=str(number)) for number in range(5)])
    assert [each.text for each in memory.memories(limit=2)] == [f"memory {number}" for number in (4, 3, 2, 1, 0)]
    assert memory.erase().deleted["memory_chunks"] == 5
    assert list(memory.memories()) == []


def test_errors_name_their_fields(memory: Client, live_server: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        memory.index(documents=[Document(text="fine"), Document(text=" ")])
    assert [each.field for each in refused.value.errors] == ["documents[1].text"]
    assert refused.value.request_id
    with Client(live_server.url, token="smem_wrong") as stranger, pytest.raises(Unauthenticated):
        stranger.query("anything")


def test_users_of_a_service_are_apart(live_server: Any) -> None:
    with Client(live_server.url, token=make_service(), user="alice") as alice:
        bob = alice.for_user("Zoë 42")
        alice.index("Alice likes peonies.")
        bob.index("Bob likes dogs.")
        assert [each.text for each in alice.memories()] == ["Alice likes peonies."]
        assert [each.text for each in bob.memories()] == ["Bob likes dogs."]


def test_context_times_and_authors_are_kept(memory: Client) -> None:
    said_at = datetime(2026, 5, 2, 9, 30, tzinfo=timezone(timedelta(hours=2)))
    turns = [Chunk(text="Where is the key?", author="Bob"), Chunk(text=KEY, author="Alice", occurred_at=said_at)]
    end = datetime.now(UTC) + timedelta(hours=1)
    memory.index(documents=[Document(chunks=turns, doc_id="talk", title="House", occurred_at=said_at, expires_at=end)])
    first, second = memory.document("talk")
    assert (first.author, first.title, second.author, second.occurred_at) == ("Bob", "House", "Alice", said_at)
    assert first.expires_at == end
    (match, *_) = memory.query("spare key flower pot", filter={"doc_id": "talk"}, context=1, explain=True).matches
    assert match.text == KEY and match.context and [each.text for each in match.context.before] == [first.text]
    assert match.explanation and -1 <= match.explanation.dense <= 1
    changed = memory.update(first.id, author=None, occurred_at=None)
    assert (changed.author, changed.occurred_at) == ("", None)
    receipt = memory.update_document("talk", title=None, expires_at=None, metadata={"room": "garden"})
    assert receipt.embedded == 2  # the header has changed
    assert [(each.title, each.expires_at, each.metadata) for each in memory.document("talk")] == [
        ("", None, {"room": "garden"})
    ] * 2


def test_many_are_read_and_deleted_at_once(memory: Client) -> None:
    ids = [memory.index(f"memory {number}").pop().chunk_ids[0] for number in range(3)]
    nobodys = "01a2154d-d7e0-7830-b77d-ea4fde580963"
    found = memory.get_many([ids[2], nobodys, ids[0]])
    assert [each.text for each in found.memories] == ["memory 2", "memory 0"] and found.missing == [nobodys]
    assert memory.delete_many([*ids[:2], nobodys]) == 2
    assert [each.text for each in memory.memories()] == ["memory 2"]


@pytest.mark.parametrize("doc_id", [".", "..", "../memories", "a/b", "a?b#c", "%2e%2e", "Zoë 42", " x ", "a//b/"])
def test_any_doc_id_is_an_address(memory: Client, doc_id: str) -> None:
    memory.index("the text", doc_id=doc_id)
    memory.index("another", doc_id="another")
    assert [each.doc_id for each in memory.document(doc_id)] == [doc_id]
    assert memory.update_document(doc_id, text="the new text").doc_id == doc_id
    assert memory.delete_document(doc_id) == 1
    assert [each.doc_id for each in memory.memories()] == ["another"]


def test_a_key_of_ones_own_stores_once(memory: Client) -> None:
    stored = [memory.index(KEY, idempotency_key="job-42") for _ in range(2)]
    assert stored[0] == stored[1] and len(list(memory.memories())) == 1
    with pytest.raises(InvalidRequest):
        memory.index("another text", idempotency_key="job-42")


def test_an_index_call_is_waited_for(memory: Client, settings: Any) -> None:
    accepted = memory.index_later(documents=[Document(text=KEY, doc_id="key")])
    assert (accepted.status, accepted.has_ended) == ("pending", False)
    with pytest.raises(StillRunning):
        memory.wait(accepted, timeout=0)
    Worker().run_until_empty()
    assert [each.doc_id for each in memory.wait(accepted)] == ["key"]
    ended = memory.operation(accepted.id)
    assert ended.progress.chunks_done == ended.progress.chunks_total == 1
    settings.MEMORY_MAX_CHUNKS = 2
    refused = memory.index_later("One word after another. " * 300)
    Worker().run_until_empty()
    with pytest.raises(TooLarge) as error:
        memory.wait(refused)
    assert error.value.errors[0].field


def test_an_export_is_taken_back(memory: Client, live_server: Any, tmp_path: Path) -> None:
    memory.index(documents=[Document(text=f"line {n}\u2028and {n}\x85end", doc_id=f"d{n}") for n in range(3)])
    (tmp_path / "memories.ndjson").write_bytes(b"".join(memory.export(embeddings=True)))
    other = make_user("bob")
    call_command("import_memories", f"--user=person:{other.pk}", tmp_path / "memories.ndjson", stdout=io.StringIO())
    with Client(live_server.url, token=make_token(other)) as stranger:
        assert {each.id: each.text for each in stranger.memories()} == {
            each.id: each.text for each in memory.memories()
        }


def test_the_async_client_does_the_same(live_server: Any) -> None:
    token = make_token(make_user())

    async def walk() -> None:
        async with AsyncClient(live_server.url, token=token) as memory:
            (stored,) = await memory.index(KEY, doc_id="key")
            answer = await memory.query("Where is the spare key?")
            assert [match.id for match in answer.matches] == stored.chunk_ids
            assert [each.text async for each in memory.memories()] == [KEY]
            assert (await memory.update(stored.chunk_ids[0], metadata={"a": 1})).metadata == {"a": 1}
            assert [each.id for each in await memory.document("key")] == stored.chunk_ids
            assert b'"complete":true' in [line async for line in memory.export()][-1]
            accepted = await memory.index_later("Bob likes dogs.")
            await sync_to_async(Worker().run_until_empty)()
            (later,) = await memory.wait(accepted)
            assert (await memory.get_many(later.chunk_ids)).memories[0].text == "Bob likes dogs."
            assert await memory.delete_many(later.chunk_ids) == 1
            assert (await memory.get(stored.chunk_ids[0])).text == KEY
            assert await memory.delete(stored.chunk_ids[0]) == 1
            assert (await memory.erase()).remaining["memory_chunks"] == 0

    async_to_sync(walk)()
