"""MCP messages over streamable HTTP, without sessions: JSON-RPC 2.0, read for two eras of the protocol.

Revision 2026-07-28 has no handshake: every request says in `params._meta` which revision it speaks and what the client
can do, and repeats revision, method and tool in headers, for proxies; the two must agree. Before it, `initialize`
opened a conversation; without a session nothing follows from it, so every other request stands for itself there too.
A request is of the newer era when its header or its `_meta` says so.

Source: modelcontextprotocol.io/specification/2026-07-28 and /2025-11-25, basic and basic/transports.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memory.exceptions import SealedMemoryError

STATELESS = "2026-07-28"
HANDSHAKE = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")  # newest first
SUPPORTED = (STATELESS, *HANDSHAKE)

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
SERVER_KEY = "io.modelcontextprotocol/serverInfo"
# Ours, in the `_meta` of a call of a tool that changes something, and of its result: the protocol has none.
IDEMPOTENCY_KEY = "sealed-memory/idempotency-key"
REPLAYED_KEY = "sealed-memory/idempotency-replayed"

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022

# Headers that repeat a part of the body, and how Django names them.
VERSION_HEADER, METHOD_HEADER, NAME_HEADER = "HTTP_MCP_PROTOCOL_VERSION", "HTTP_MCP_METHOD", "HTTP_MCP_NAME"
_BASE64 = re.compile(r"=\?base64\?(?P<payload>.*)\?=")


class ProtocolError(SealedMemoryError):
    """A message that is answered with a JSON-RPC error. `message` and `data` go out: never put its content into them.

    `id` is the request's where it could be read, else None.
    """

    def __init__(self, code: int, message: str, *, status: int = 400, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status
        self.data = dict(data or {})
        self.id: str | int | None = None


@dataclass(frozen=True)
class Message:
    """A request, or a notification, whose `id` is None. `stateless`: it is of revision 2026-07-28."""

    method: str
    id: str | int | None
    stateless: bool
    params: Mapping[str, Any] = field(repr=False)

    @property
    def meta(self) -> Mapping[str, Any]:
        """Its `_meta`; empty where it has none."""
        return _meta(self.params)


def read_message(body: Any, headers: Mapping[str, Any]) -> Message:
    """The message of a body; `headers` as in WSGI's environment. Raises ProtocolError."""
    if not isinstance(body, dict):
        raise ProtocolError(INVALID_REQUEST, "One JSON-RPC message a request; there are no batches.")
    message_id = _message_id(body)
    try:
        return _checked(body, message_id, headers)
    except ProtocolError as error:
        error.id = message_id
        raise


def negotiated(requested: Any) -> str:
    """The revision that `initialize` agrees on: the client's if it is one with a handshake, else the newest such."""
    return requested if requested in HANDSHAKE else HANDSHAKE[0]


def _message_id(body: Mapping[str, Any]) -> str | int | None:
    if "id" not in body:
        return None
    if type(body["id"]) not in (str, int):
        raise ProtocolError(INVALID_REQUEST, "An id is a string or an integer.")
    given: str | int = body["id"]
    return given


def _checked(body: Mapping[str, Any], message_id: str | int | None, headers: Mapping[str, Any]) -> Message:
    method, params = body.get("method"), body.get("params", {})
    if body.get("jsonrpc") != "2.0" or not isinstance(method, str):
        raise ProtocolError(INVALID_REQUEST, 'A message has "jsonrpc": "2.0" and a method.')
    if not isinstance(params, dict):
        raise ProtocolError(INVALID_PARAMS, "params is an object.")
    stateless = _is_stateless(params, headers)
    if message_id is None:
        return Message(method=method, id=None, params=params, stateless=stateless)
    if stateless:
        _check_envelope(method, params, headers)
    return Message(method=method, id=message_id, params=params, stateless=stateless)


def _is_stateless(params: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    version = headers.get(VERSION_HEADER)
    if version == STATELESS or VERSION_KEY in _meta(params):
        return True
    if version is not None and version not in HANDSHAKE:
        raise _unsupported(version)
    return False


def _meta(params: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = params.get("_meta")
    return meta if isinstance(meta, dict) else {}


def _check_envelope(method: str, params: Mapping[str, Any], headers: Mapping[str, Any]) -> None:
    """What revision 2026-07-28 demands of every request. A client that contradicts itself is told that first."""
    meta = _meta(params)
    for key in (VERSION_KEY, CAPABILITIES_KEY):
        if key not in meta:
            raise ProtocolError(INVALID_PARAMS, f"params._meta lacks {key}.")
    version, capabilities = meta[VERSION_KEY], meta[CAPABILITIES_KEY]
    if not isinstance(version, str) or not isinstance(capabilities, dict):
        raise ProtocolError(INVALID_PARAMS, f"In _meta, {VERSION_KEY} is a string, {CAPABILITIES_KEY} an object.")
    if headers.get(VERSION_HEADER) != version:
        raise ProtocolError(HEADER_MISMATCH, f"The header MCP-Protocol-Version differs from _meta {VERSION_KEY}.")
    if headers.get(METHOD_HEADER) != method:
        raise ProtocolError(HEADER_MISMATCH, "The header Mcp-Method differs from method.")
    if method == "tools/call" and _decoded(headers.get(NAME_HEADER)) != params.get("name"):
        raise ProtocolError(HEADER_MISMATCH, "The header Mcp-Name differs from params.name.")
    if version != STATELESS:
        raise _unsupported(version)


def _unsupported(version: str) -> ProtocolError:
    # The one thing of the caller's that is repeated: the protocol wants it. Cut, so that it cannot carry much.
    data = {"supported": list(SUPPORTED), "requested": version[:40]}
    return ProtocolError(UNSUPPORTED_VERSION, "This revision of the protocol is not spoken here.", data=data)


def _decoded(header: str | None) -> str | None:
    """The value of a header that is `=?base64?…?=` where plain ASCII could not carry it; None if it is malformed."""
    if header is None or (match := _BASE64.fullmatch(header)) is None:
        return header
    try:
        return base64.b64decode(match["payload"], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
