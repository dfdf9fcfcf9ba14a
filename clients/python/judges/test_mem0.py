"""mem0's own clients, unchanged, at the service's door for them: SEALED_MEMORY_URL, as the users of a service."""

import asyncio
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SERVICE = os.environ["SEALED_MEMORY_URL"]
TOKEN = os.environ["SEALED_MEMORY_TOKEN"]
SERVICE_TOKEN = os.environ["SEALED_MEMORY_SERVICE_TOKEN"]
HOST = f"{SERVICE}/api/mem0"


@pytest.fixture(scope="module")
def mem0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The package. It reads these as it is imported: nothing is to be told to anybody else."""
    folder: Path = tmp_path_factory.mktemp("mem0")
    os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder)}
    import mem0

    yield mem0


@pytest.fixture(autouse=True)
def only_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection but to the service, and no name looked up."""
    connect = socket.socket.connect

    def checked(self: socket.socket, address: Any) -> None:
        assert address[0] in ("127.0.0.1", "localhost", "::1"), f"a call to {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", checked)


@pytest.fixture
def client(mem0: Any) -> Any:
    return mem0.MemoryClient(api_key=SERVICE_TOKEN, host=HOST)


@pytest.fixture
def alice(client: Any) -> Iterator[str]:
    name = f"alice {uuid.uuid4()} ñ/日本"
    yield name
    client.delete_users(user_id=name)


@pytest.fixture
def bob(client: Any) -> Iterator[str]:
    name = f"service:other:{uuid.uuid4()}"
    yield name
    client.delete_users(user_id=name)


def texts(answer: Any) -> list[str]:
    return [each["memory"] for each in answer["results"]]


def test_a_wrong_key_is_noticed_at_the_start(mem0: Any) -> None:
    with pytest.raises(ValueError, match="token"):
        mem0.MemoryClient(api_key="smem_wrong", host=HOST)


def test_a_conversation_from_beginning_to_end(client: Any, alice: str) -> None:
    messages = [
        {"role": "user", "content": "I am allergic to penicillin."},
        {"role": "assistant", "content": "I will remember that."},
    ]
    added = client.add(messages, user_id=alice, run_id="intake", metadata={"kind": "health"}, infer=True)
    assert texts(added) == [message["content"] for message in messages]
    assert client.client.get(f"/v1/event/{added['event_id']}/").json()["status"] == "SUCCEEDED"

    found = client.search("Which medicine must I not take?", filters={"AND": [{"user_id": alice}, {"run_id": "*"}]})
    assert found["results"][0]["memory"] == "I am allergic to penicillin." and 0 < found["results"][0]["score"] <= 1
    memory_id = found["results"][0]["id"]
    assert client.get(memory_id)["user_id"] == alice

    assert client.update(memory_id, text="I am allergic to penicillin and to nuts.")["id"] == memory_id
    assert client.get(memory_id)["memory"].endswith("nuts.")
    client.update(memory_id, metadata={"checked": True}, expiration_date="2999-12-31", timestamp=1_767_225_600)
    assert client.get(memory_id)["metadata"] == {"kind": "health", "checked": True}

    every = client.get_all(filters={"user_id": alice}, page=1, page_size=1)
    assert every["count"] == 2 and every["next"] and len(every["results"]) == 1

    client.batch_update([{"memory_id": memory_id, "text": "Allergic to penicillin."}])
    assert client.get(memory_id)["memory"] == "Allergic to penicillin."
    client.batch_delete([{"memory_id": memory_id}])
    with pytest.raises(Exception, match="404") as caught:
        client.get(memory_id)
    assert type(caught.value).__name__ == "MemoryNotFoundError"
    client.delete_all(user_id=alice, run_id="intake")
    assert client.get_all(filters={"user_id": alice})["count"] == 0


def test_options_and_single_texts(client: Any, alice: str) -> None:
    from mem0.client.types import AddMemoryOptions, GetAllMemoryOptions, SearchMemoryOptions

    client.add("I fly on Friday.", AddMemoryOptions(filters={"user_id": alice, "agent_id": "planner"}, infer=False))
    narrow = {"user_id": alice, "agent_id": "planner"}
    asked = SearchMemoryOptions(filters=narrow, top_k=1, rerank=False, threshold=0.1, keyword_search=True)
    assert texts(client.search("When do I fly?", asked)) == ["I fly on Friday."]
    assert texts(client.get_all(GetAllMemoryOptions(filters=narrow, start_date="2020-01-01"))) == ["I fly on Friday."]
    assert client.search("When do I fly?", filters={"user_id": alice, "agent_id": "another"})["results"] == []


def test_what_cannot_be_followed_is_an_error_not_a_silence(client: Any, alice: str) -> None:
    for call in (
        lambda: client.search("x", filters={"user_id": alice, "categories": {"in": ["food"]}}),
        lambda: client.get_all(filters={"OR": [{"user_id": alice}, {"agent_id": "x"}]}),
        lambda: client.add("x", user_id=alice, custom_instructions="Only dates."),
        lambda: client.search("x"),
        lambda: client.delete_all(),
    ):
        with pytest.raises(Exception) as caught:  # noqa: B017
            call()
        assert type(caught.value).__name__ == "ValidationError"


def test_what_is_not_served_says_so(client: Any, alice: str) -> None:
    for call in (
        client.users,
        client.reset,
        client.get_summary,
        client.get_memory_export,
        client.get_profile_settings,
        lambda: client.create_memory_export(schema="{}"),
        lambda: client.history("x"),
        lambda: client.feedback("x", "POSITIVE"),
        lambda: client.get_profile(alice),
        lambda: client.generate_profile(alice),
        lambda: client.delete_users(agent_id="planner"),
        client.project.get,
        lambda: client.get_webhooks("p"),
    ):
        with pytest.raises(Exception, match="Not served"):
            call()


def test_two_users_of_one_token_in_turns_and_at_once(mem0: Any, client: Any, alice: str, bob: str) -> None:
    wrong: list[str] = []

    def work(name: str, mark: str) -> None:
        own = mem0.MemoryClient(api_key=SERVICE_TOKEN, host=HOST)
        for number in range(6):
            own.add(f"{mark} likes flower {number}.", user_id=name, app_id="garden")
            for shown in (own.get_all(filters={"user_id": name}), own.search("flower", filters={"user_id": name})):
                wrong.extend(text for text in texts(shown) if not text.startswith(mark))

    threads = [threading.Thread(target=work, args=pair) for pair in ((alice, "Alice"), (bob, "Bob"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    client.delete_all(user_id=bob)
    assert client.get_all(filters={"user_id": alice})["count"] == 6
    assert client.get_all(filters={"user_id": bob})["count"] == 0


def test_a_persons_token_reaches_that_person(mem0: Any) -> None:
    own = mem0.MemoryClient(api_key=TOKEN, host=HOST)
    (stored,) = own.add("The spare key is under the pot.")["results"]
    assert texts(own.search("Where is the spare key?")) == ["The spare key is under the pot."]
    with pytest.raises(Exception, match="own memory only"):
        own.add("x", user_id="alice")
    assert "deleted" in own.delete(stored["id"])["message"]
    own.delete_all(user_id="*")


def test_the_asynchronous_client(mem0: Any, alice: str) -> None:
    async def walk() -> None:
        client = mem0.AsyncMemoryClient(api_key=SERVICE_TOKEN, host=HOST)
        (stored,) = (await client.add("Milo is a cat.", user_id=alice))["results"]
        assert texts(await client.search("Who is a cat?", filters={"user_id": alice})) == ["Milo is a cat."]
        assert (await client.get(stored["id"]))["memory"] == "Milo is a cat."
        await client.delete(stored["id"])
        assert (await client.get_all(filters={"user_id": alice}))["count"] == 0

    asyncio.run(walk())
