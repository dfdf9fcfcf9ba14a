"""Tool calls that are sent again."""

from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from memory.api.mcp.protocol import IDEMPOTENCY_KEY, REPLAYED_KEY
from tests.factories import api_client, make_service, person_client, stored_texts
from tests.memory.api.mcp.messages import ENVELOPE, request, send, send_stateless

pytestmark = pytest.mark.django_db(transaction=True)
ALICE = "service:acme:alice"


@pytest.fixture
def secret() -> str:
    return make_service()


@pytest.fixture
def client(secret: str) -> Client:
    return api_client(secret, user="alice")


def call(client: Client, key: Any, tool: str = "add_memory", headers: Any = None, **arguments: Any) -> Any:
    """The result of a tool call with a key in its `_meta`."""
    params = {"name": tool, "arguments": arguments, "_meta": {} if key is None else {IDEMPOTENCY_KEY: key}}
    return send(client, request("tools/call", params), **(headers or {})).json()["result"]


def test_a_call_with_a_key_is_carried_out_once(client: Client) -> None:
    first, second = (call(client, "k", text="Once.") for _ in range(2))
    assert stored_texts(ALICE) == ["Once."]
    assert second.pop("_meta") == {REPLAYED_KEY: True} and second == first
    assert call(client, "other", text="Once.") != first and len(stored_texts(ALICE)) == 2
    erased = [call(client, "e", tool="delete_all_memories", confirm=True) for _ in range(2)]
    assert not erased[0].get("isError") and stored_texts(ALICE) == []


def test_the_header_is_a_key_as_at_the_other_doors(client: Client) -> None:
    header = {"Idempotency-Key": "k"}
    first, second = (call(client, None, headers=header, text="Once.") for _ in range(2))
    assert second["structuredContent"] == first["structuredContent"] and stored_texts(ALICE) == ["Once."]
    params = {"name": "add_memory", "arguments": {"text": "x"}, "_meta": {IDEMPOTENCY_KEY: "another"}}
    assert send(client, request("tools/call", params), **header).json()["error"]["code"] == -32602


def test_a_key_with_something_else_is_an_error_the_model_is_told(client: Client) -> None:
    call(client, "k", text="Once.")
    for refused in (call(client, "k", text="Another."), call(client, "k", tool="delete_all_memories", confirm=True)):
        assert refused["isError"] and "Idempotency-Key" in refused["content"][0]["text"]
    assert stored_texts(ALICE) == ["Once."]


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", 7, None, ["k"], "line\n"])
def test_what_is_no_key_is_refused(key: Any, client: Client) -> None:
    params = {"name": "add_memory", "arguments": {"text": "x"}, "_meta": {IDEMPOTENCY_KEY: key}}
    result = send(client, request("tools/call", params)).json()["result"]
    assert result["isError"] and "Idempotency-Key" in result["content"][0]["text"]
    assert stored_texts(ALICE) == []


def test_findings_are_kept_and_what_may_pass_is_not(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(client, "bad", text=" ")["isError"]
    assert call(client, "bad", text=" ")["_meta"] == {REPLAYED_KEY: True}

    def away(**given: Any) -> Any:
        raise OperationalError

    with monkeypatch.context() as patched:
        patched.setattr("memory.api.mcp.tools.index_documents", away)
        assert call(client, "k", text="x")["isError"]
    again = call(client, "k", text="x")
    assert not again.get("isError") and "_meta" not in again


def test_an_answer_that_was_lost_is_stored_in_the_same_place(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*given: Any) -> None:
        raise SystemExit  # the process dies between its commit and the answer

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr("memory.api.mcp.views.conclude", lost)
        client.raise_request_exception = True
        call(client, "k", text="Once.")
    busy = call(client, "k", text="Once.")
    assert busy["isError"] and '"status": 409' in busy["content"][0]["text"]
    assert stored_texts(ALICE) == ["Once."]


def test_after_its_time_a_lost_call_is_carried_out_in_the_same_place(
    client: Client, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.MEMORY_IDEMPOTENCY_HELD_SECONDS = 0
    monkeypatch.setattr("memory.api.mcp.views.conclude", lambda *given: None)
    first, second = (call(client, "k", text="Once.") for _ in range(2))
    assert first["structuredContent"]["id"] == second["structuredContent"]["id"]
    assert stored_texts(ALICE) == ["Once."]


def test_two_users_never_meet_in_a_key_and_reading_needs_none(client: Client, secret: str) -> None:
    for each in (client, api_client(secret, user="bob"), person_client()):
        result = call(each, "same", text="Mine.")
        assert "_meta" not in result
    found = [call(client, "r", tool="search_memories", query="mine") for _ in range(2)]
    assert all("_meta" not in each for each in found)


def test_revision_2026_tells_of_the_server_and_of_the_replay(client: Client) -> None:
    params = {"name": "add_memory", "arguments": {"text": "Once."}}
    told = [
        send_stateless(client, "tools/call", {**params, "_meta": {**ENVELOPE, IDEMPOTENCY_KEY: "k"}}).json()["result"]
        for _ in range(2)
    ]
    assert [REPLAYED_KEY in each["_meta"] for each in told] == [False, True]
