"""The Python client against the real service, over HTTP."""

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from sealed_memory import AsyncClient, Client, Document, InvalidRequest, NotFound, Unauthenticated

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
            assert (await memory.get(stored.chunk_ids[0])).text == KEY
            assert await memory.delete(stored.chunk_ids[0]) == 1
            assert (await memory.erase()).remaining["memory_chunks"] == 0

    async_to_sync(walk)()
