"""The official SDK's client, in both modes, over real HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from asgiref.sync import async_to_sync
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from memory.api.mcp.protocol import HANDSHAKE, STATELESS
from memory.api.mcp.tools import TOOLS
from tests.factories import make_service, make_token, make_user

pytestmark = pytest.mark.django_db(transaction=True)
MODES = {"legacy": HANDSHAKE[0], "auto": STATELESS}


@asynccontextmanager
async def connected(address: str, mode: str, **headers: str) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(f"{address}/api/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


@pytest.mark.parametrize("mode", MODES)
def test_the_clients_walk_through_the_tools(mode: str, live_server: Any) -> None:
    secret = make_token(make_user())

    async def walk() -> None:
        async with connected(live_server.url, mode, Authorization=f"Bearer {secret}") as client:
            assert client.protocol_version == MODES[mode]
            assert [tool.name for tool in (await client.list_tools()).tools] == list(TOOLS)
            added = await client.call_tool("add_memory", {"text": "The spare key is under the blue flower pot."})
            assert not added.is_error
            # The client checks structured content against the tool's own output schema.
            found = await client.call_tool("search_memories", {"query": "Where is the spare key?"})
            assert "blue flower pot" in found.content[0].text
            memory_id = found.structured_content["matches"][0]["id"]
            assert not (await client.call_tool("get_memory", {"memory_id": memory_id})).is_error
            assert (await client.call_tool("get_memories", {"limit": 0})).is_error
            erased = await client.call_tool("delete_all_memories", {"confirm": True})
            assert erased.structured_content["deleted"]["memory_chunks"] == 1
            assert (await client.call_tool("get_memories")).structured_content["memories"] == []

    async_to_sync(walk)()


@pytest.mark.parametrize("mode", MODES)
def test_two_users_of_a_service_have_two_memories(mode: str, live_server: Any) -> None:
    secret = make_service()

    async def ask(user: str, tool: str, **arguments: Any) -> Any:
        headers = {"Authorization": f"Bearer {secret}", "X-Memory-User": user}
        async with connected(live_server.url, mode, **headers) as client:
            return await client.call_tool(tool, arguments)

    async def walk() -> None:
        await ask("alice", "add_memory", text="Alice likes peonies.")
        await ask("bob", "add_memory", text="Bob likes dogs.")
        await ask("bob", "delete_all_memories", confirm=True)
        found = await ask("alice", "search_memories", query="What does Alice like?")
        assert [match["text"] for match in found.structured_content["matches"]] == ["Alice likes peonies."]
        assert (await ask("bob", "search_memories", query="peonies")).structured_content["matches"] == []

    async_to_sync(walk)()
