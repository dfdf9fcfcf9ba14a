"""Messages of both eras, as clients send them."""

from collections.abc import Mapping
from typing import Any

from django.test import Client

from memory.api.mcp.protocol import CAPABILITIES_KEY, STATELESS, VERSION_KEY

ADDRESS = "/api/mcp"
ENVELOPE = {VERSION_KEY: STATELESS, CAPABILITIES_KEY: {}}


def send(client: Client, message: Any, **headers: str) -> Any:
    """POST a message as it is."""
    return client.post(ADDRESS, message, content_type="application/json", headers=headers)


def request(method: str, params: Mapping[str, Any] | None = None, message_id: Any = 1) -> dict[str, Any]:
    """A request of the revisions with a handshake."""
    return {"jsonrpc": "2.0", "id": message_id, "method": method, "params": dict(params or {})}


def send_stateless(client: Client, method: str, params: Mapping[str, Any] | None = None, **headers: str) -> Any:
    """POST a request of revision 2026-07-28 with the headers that belong to it, or others."""
    params = {"_meta": ENVELOPE, **(params or {})}
    routing = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": method}
    if method == "tools/call":
        routing["Mcp-Name"] = str(params.get("name"))
    return send(client, request(method, params), **{**routing, **headers})


def call(client: Client, tool: str, **arguments: Any) -> Any:
    """The result of a tool call."""
    return send(client, request("tools/call", {"name": tool, "arguments": arguments})).json()["result"]
