"""What both eras of the protocol demand, message by message."""

import json
from typing import Any

import pytest

from memory.api.mcp import protocol
from memory.api.mcp.protocol import CAPABILITIES_KEY, HANDSHAKE, STATELESS, SUPPORTED, VERSION_KEY
from memory.api.mcp.tools import TOOLS
from tests.factories import api_client, make_service, make_user, person_client
from tests.memory.api.mcp.messages import ADDRESS, ENVELOPE, request, send, send_stateless

pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Any:
    return person_client()


def error(response: Any) -> tuple[int, int]:
    """The HTTP status and the JSON-RPC code of a refusal."""
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize("version", [*HANDSHAKE, STATELESS, "1999-01-01", None, 5, {}])
def test_initialize_agrees_on_a_revision_that_has_a_handshake(client: Any, version: Any) -> None:
    result = send(client, request("initialize", {"protocolVersion": version})).json()["result"]
    assert result["protocolVersion"] == (version if version in HANDSHAKE else HANDSHAKE[0])
    assert result["capabilities"] == {"tools": {}}
    assert result["serverInfo"]["name"] == "sealed-memory"


def test_requests_need_no_handshake_and_get_no_session(client: Any) -> None:
    response = send(client, request("tools/list"))
    assert [tool["name"] for tool in response.json()["result"]["tools"]] == list(TOOLS)
    assert "Mcp-Session-Id" not in response
    assert send(client, request("ping", message_id="a")).json() == {"jsonrpc": "2.0", "id": "a", "result": {}}


def test_notifications_are_accepted_and_answered_by_nothing(client: Any) -> None:
    for method in ("notifications/initialized", "notifications/cancelled", "notifications/of_another_age"):
        response = send(client, {"jsonrpc": "2.0", "method": method})
        assert (response.status_code, response.content) == (202, b"")


def test_discovery_names_the_revisions(client: Any) -> None:
    result = send_stateless(client, "server/discover").json()["result"]
    assert result["supportedVersions"] == list(SUPPORTED)
    assert result["resultType"] == "complete"
    assert result["_meta"][protocol.SERVER_KEY]["name"] == "sealed-memory"
    assert result["ttlMs"] > 0 and result["cacheScope"] == "public"


@pytest.mark.parametrize("method", ["initialize", "ping", "resources/list", "no/such", ""])
def test_unknown_methods_are_404_in_the_newer_era_and_an_error_in_the_older(client: Any, method: str) -> None:
    assert error(send_stateless(client, method)) == (404, protocol.METHOD_NOT_FOUND)
    if method not in ("initialize", "ping"):
        assert error(send(client, request(method))) == (200, protocol.METHOD_NOT_FOUND)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ([request("ping"), request("ping")], protocol.INVALID_REQUEST),
        ([], protocol.INVALID_REQUEST),
        ("ping", protocol.INVALID_REQUEST),
        (5, protocol.INVALID_REQUEST),
        ({}, protocol.INVALID_REQUEST),
        ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, protocol.INVALID_REQUEST),
        ({"jsonrpc": "2.0", "id": 1, "method": 5}, protocol.INVALID_REQUEST),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, protocol.INVALID_REQUEST),
        (request("ping", message_id=None), protocol.INVALID_REQUEST),
        (request("ping", message_id=True), protocol.INVALID_REQUEST),
        (request("ping", message_id=1.5), protocol.INVALID_REQUEST),
        (request("ping", message_id={}), protocol.INVALID_REQUEST),
        (request("ping", message_id=[1]), protocol.INVALID_REQUEST),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}, protocol.INVALID_PARAMS),
        (request("tools/call", {"name": "no_such_tool"}), protocol.INVALID_PARAMS),
        (request("tools/call", {"name": ["search_memories"]}), protocol.INVALID_PARAMS),
        (request("tools/call"), protocol.INVALID_PARAMS),
    ],
)
def test_malformed_messages_are_refused_by_the_protocols_code(client: Any, message: Any, code: int) -> None:
    response = send(client, json.dumps(message))
    assert response.json()["error"]["code"] == code
    assert response.json()["error"]["data"]["status"] == 400


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"id": 1, "id": 2}', b"[" * 5000, b'{"id": NaN}', b"null"])
def test_what_is_not_json_is_refused(client: Any, body: bytes) -> None:
    response = client.post(ADDRESS, body, content_type="application/json")
    assert response.status_code == 400
    assert response.json()["error"]["code"] in (protocol.PARSE_ERROR, protocol.INVALID_REQUEST)
    assert response.json()["id"] is None


@pytest.mark.parametrize("message_id", [0, -1, 2**63, "", "x" * 300, "\u202e"])
def test_ids_come_back_as_they_came(client: Any, message_id: Any) -> None:
    assert send(client, request("ping", message_id=message_id)).json()["id"] == message_id


def test_a_client_that_contradicts_itself_is_told_so_before_anything_runs(client: Any) -> None:
    arguments = {"name": "delete_all_memories", "arguments": {"confirm": True}}
    mismatch = (400, protocol.HEADER_MISMATCH)
    assert error(send_stateless(client, "tools/call", arguments, **{"Mcp-Name": "search_memories"})) == mismatch
    assert error(send_stateless(client, "tools/call", arguments, **{"Mcp-Method": "tools/list"})) == mismatch
    assert error(send_stateless(client, "tools/list", **{"MCP-Protocol-Version": "2025-11-25"})) == mismatch
    assert error(send(client, request("tools/list", {"_meta": ENVELOPE}))) == mismatch


def test_names_beyond_ascii_travel_encoded(client: Any) -> None:
    header = {"Mcp-Name": "=?base64?c2VhcmNoX21lbW9yaWVz?="}
    arguments = {"name": "search_memories", "arguments": {"query": "a"}}
    assert send_stateless(client, "tools/call", arguments, **header).status_code == 200
    for malformed in ("=?base64?!?=", "=?base64?/w==?="):
        refused = send_stateless(client, "tools/call", arguments, **{"Mcp-Name": malformed})
        assert error(refused) == (400, protocol.HEADER_MISMATCH)


@pytest.mark.parametrize(
    "meta", [{}, {VERSION_KEY: STATELESS}, {CAPABILITIES_KEY: {}}, {**ENVELOPE, VERSION_KEY: 5}, []]
)
def test_an_incomplete_envelope_is_refused(client: Any, meta: Any) -> None:
    assert error(send_stateless(client, "tools/list", {"_meta": meta})) == (400, protocol.INVALID_PARAMS)


def test_a_revision_not_spoken_is_refused_with_those_that_are(client: Any) -> None:
    newer = {**ENVELOPE, VERSION_KEY: "2027-01-01"}
    response = send_stateless(client, "tools/list", {"_meta": newer}, **{"MCP-Protocol-Version": "2027-01-01"})
    assert error(response) == (400, protocol.UNSUPPORTED_VERSION)
    assert response.json()["error"]["data"]["supported"] == list(SUPPORTED)
    assert error(send(client, request("ping"), **{"MCP-Protocol-Version": "1999-01-01"})) == (
        400,
        protocol.UNSUPPORTED_VERSION,
    )


def test_only_post_is_answered(client: Any) -> None:
    for verb in ("get", "delete", "put", "patch"):
        response = getattr(client, verb)(ADDRESS)
        assert response.status_code == 405, verb
        assert "POST" in response["Allow"]


def test_pages_from_elsewhere_are_refused_whatever_they_hold(client: Any) -> None:
    for origin in ("https://evil.example", "null", "http://testserver.evil.example"):
        assert send(client, request("ping"), Origin=origin).status_code == 403
    assert send(client, request("ping"), Origin="http://testserver").status_code == 200


def test_a_browsers_session_is_no_credential() -> None:
    browser = api_client()
    browser.force_login(make_user())
    assert send(browser, request("tools/list")).status_code == 401
    assert send(api_client(), request("tools/list")).status_code == 401
    assert send(api_client("smem_wrong"), request("tools/list")).status_code == 401


def test_a_service_names_its_user() -> None:
    secret = make_service()
    assert send(api_client(secret), request("tools/list")).status_code == 400
    assert send(api_client(secret, user="42"), request("tools/list")).status_code == 200


def test_a_body_beyond_the_limit_is_413(client: Any, settings: Any) -> None:
    settings.MEMORY_MAX_BODY_BYTES = 100
    assert send(client, request("ping", {"x": "y" * 200})).status_code == 413


def test_calls_count_in_the_scope_of_their_verb(client: Any, settings: Any) -> None:
    settings.MEMORY_THROTTLE_QUERY = "1/min"
    search = request("tools/call", {"name": "search_memories", "arguments": {"query": "a"}})
    assert [send(client, search).status_code for _ in range(2)] == [200, 429]
    assert send(client, request("tools/list")).status_code == 200
