"""The verbs of the API, each said once: its parameters, its requests, and what is read from the answers.

A verb returns steps: a generator that yields requests (`Call`) and pauses, is sent what was answered, and returns the
result. Both clients carry out the same steps, one in its thread, one in an event loop; so they cannot differ.
"""

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar, Unpack
from urllib.parse import quote

from sealed_memory.errors import StillRunning
from sealed_memory.models import (
    Answer,
    ChangedDocument,
    Document,
    DocumentChanges,
    DocumentOptions,
    ErasureReceipt,
    Found,
    IndexedDocument,
    ListOptions,
    Memory,
    MemoryChanges,
    Operation,
    Page,
    QueryOptions,
    as_json,
    each_of,
)

T = TypeVar("T")
API = "/api/v1"
LATER = {b"Prefer": b"respond-async"}
LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and what makes a result of its JSON. `key`: its Idempotency-Key, if the caller has one.

    `streamed`: the answer is read while it arrives, and not by `read`.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    body: Any = field(default=None, repr=False)
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)
    headers: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    key: str | None = field(default=None, repr=False)
    streamed: bool = False


@dataclass(frozen=True)
class Pause:
    """Do nothing for so long."""

    seconds: float


Steps: TypeAlias = Generator[Call[Any] | Pause, Any, T]
Pages: TypeAlias = Callable[[str | None], Steps[Page]]
"""Steps to the page that begins at a cursor."""


def ask(call: Call[T]) -> Steps[T]:
    """One request. Raises ServerError or NoAnswer."""
    answered: T = yield call
    return answered


# --- Store ------------------------------------------------------------------------------------------------------------


def index(
    text: str | None = None,
    *,
    documents: Sequence[Document] | None = None,
    idempotency_key: str | None = None,
    **described: Unpack[DocumentOptions],
) -> Steps[list[IndexedDocument]]:
    """Store one text (with Document's other members as keywords) or many documents, all of them or none.

    Each attempt carries the same Idempotency-Key. Give your own if another process may repeat this call after a crash:
    the same call under the same key is carried out once, and answered alike, for a day.
    """
    body = _documents(text, documents, described)
    return ask(Call("POST", f"{API}/memories/index", _indexed, body, key=idempotency_key))


def index_later(
    text: str | None = None,
    *,
    documents: Sequence[Document] | None = None,
    idempotency_key: str | None = None,
    **described: Unpack[DocumentOptions],
) -> Steps[Operation]:
    """As `index`, without waiting: the service accepts the call and carries it out later. See `wait`."""
    body = _documents(text, documents, described)
    return ask(Call("POST", f"{API}/memories/index", Operation.of, body, headers=LATER, key=idempotency_key))


def operation(operation_id: str) -> Steps[Operation]:
    """How far an operation is. Its result is kept for a day. Raises NotFound."""
    return ask(Call("GET", f"{API}/operations/{_segment(operation_id)}", Operation.of))


def wait(started: Operation, *, timeout: float = 300.0) -> Steps[list[IndexedDocument]]:
    """Wait until an operation has ended, looking once a second; the documents it stored.

    Raises what the call itself would have raised; StillRunning after `timeout` seconds; NotFound once it is forgotten.
    """
    until = time.monotonic() + timeout
    current = started
    while not current.has_ended:
        if time.monotonic() >= until:
            raise StillRunning(f"Operation {current.id} is {current.status}.")
        yield Pause(max(min(LOOK_AGAIN_SECONDS, until - time.monotonic()), 0.0))
        current = yield from operation(current.id)
    if current.error is not None:
        raise current.error
    return current.result or []


# --- Ask and read -----------------------------------------------------------------------------------------------------


def query(text: str, *, top_k: int = 10, **options: Unpack[QueryOptions]) -> Steps[Answer]:
    """The memories that answer best, best first. Options: see QueryOptions."""
    body = {"query": text, "top_k": top_k, **_given(options)}
    return ask(Call("POST", f"{API}/memories/query", Answer.of, body))


def page(*, limit: int = 50, cursor: str | None = None, **options: Unpack[ListOptions]) -> Steps[Page]:
    """One page of memories, newest first. Options: see ListOptions."""
    given = _given({"limit": limit, "cursor": cursor, **options})
    if "filter" in given:  # the query string holds text
        given["filter"] = json.dumps(given["filter"])
    return ask(Call("GET", f"{API}/memories", Page.of, parameters=given))


def memories(*, limit: int = 50, **options: Unpack[ListOptions]) -> Pages:
    """Every memory, newest first, `limit` to a request. Options: see ListOptions."""
    return lambda cursor: page(limit=limit, cursor=cursor, **options)


def get(memory_id: str) -> Steps[Memory]:
    """One memory. Raises NotFound."""
    return ask(Call("GET", _memory(memory_id), Memory.of))


def get_many(memory_ids: Sequence[str]) -> Steps[Found]:
    """Memories by their ids, up to a hundred, and which of them are not there."""
    return ask(Call("POST", f"{API}/memories/get", Found.of, {"ids": list(memory_ids)}))


def document_page(doc_id: str, *, limit: int = 50, cursor: str | None = None) -> Steps[Page]:
    """One page of a document's memories, in its order. Raises NotFound."""
    return ask(Call("GET", _document(doc_id), _chunks, parameters=_given({"limit": limit, "cursor": cursor})))


def document(doc_id: str) -> Steps[list[Memory]]:
    """A document's memories, all of them, in its order. Raises NotFound."""
    found: list[Memory] = []
    cursor = None
    while True:
        part = yield from document_page(doc_id, limit=100, cursor=cursor)
        found += part.memories
        if (cursor := part.next_cursor) is None:
            return found


def export(*, embeddings: bool = False) -> Call[None]:
    """Everything, as of one moment: lines of JSON as bytes, while they arrive. `manage.py import_memories` takes them.

    The first line is about the export, the last says that it is complete; ExportBrokenOff if that does not come.
    """
    parameters = {"embeddings": "true"} if embeddings else {}
    accepted = {b"Accept": b"application/x-ndjson, application/problem+json"}
    return Call("GET", f"{API}/export", lambda body: None, parameters=parameters, headers=accepted, streamed=True)


# --- Change -----------------------------------------------------------------------------------------------------------


def update(memory_id: str, **changes: Unpack[MemoryChanges]) -> Steps[Memory]:
    """Change a memory; what is not named stays, None takes away. `metadata` is merged (RFC 7396). Raises NotFound."""
    return ask(Call("PATCH", _memory(memory_id), Memory.of, _changed(changes)))


def update_document(doc_id: str, **changes: Unpack[DocumentChanges]) -> Steps[ChangedDocument]:
    """Change every memory of a document, in the same way. A new text is split anew. Raises NotFound."""
    return ask(Call("PATCH", _document(doc_id), ChangedDocument.of, _changed(changes)))


# --- Delete -----------------------------------------------------------------------------------------------------------


def delete(memory_id: str) -> Steps[int]:
    """Delete one memory. Raises NotFound."""
    return ask(Call("DELETE", _memory(memory_id), _deleted))


def delete_many(memory_ids: Sequence[str]) -> Steps[int]:
    """Delete memories by their ids, up to a hundred, in one transaction; how many there were."""
    return ask(Call("POST", f"{API}/memories/delete", _deleted, {"ids": list(memory_ids)}))


def delete_document(doc_id: str) -> Steps[int]:
    """Delete a document; how many memories it had. Raises NotFound."""
    return ask(Call("DELETE", _document(doc_id), _deleted))


def erase() -> Steps[ErasureReceipt]:
    """Delete everything of this user."""
    return ask(Call("DELETE", f"{API}/memories", ErasureReceipt.of))


# --- Bodies and addresses ---------------------------------------------------------------------------------------------


def _documents(text: str | None, documents: Sequence[Document] | None, described: DocumentOptions) -> Any:
    if (text is None) == (documents is None):
        raise ValueError("Give either a text or documents.")
    if documents is not None and described:
        raise ValueError("Give each document its own members.")
    return {"documents": [each.as_json() for each in documents or [Document(text=text, **described)]]}


def _memory(memory_id: str) -> str:
    return f"{API}/memories/{_segment(memory_id)}"


def _document(doc_id: str) -> str:
    return f"{API}/documents/{_segment(doc_id)}"


def _segment(name: str) -> str:
    """A name as one part of an address. `.` and `..` are quoted as well, or they would lead to another address."""
    quoted = quote(str(name), safe="")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: as_json(value) for name, value in options.items() if value is not None}


def _changed(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: as_json(value) for name, value in changes.items()}


def _indexed(body: Mapping[str, Any]) -> list[IndexedDocument]:
    return each_of(IndexedDocument.of, body["documents"])


def _chunks(body: Mapping[str, Any]) -> Page:
    return Page.of({**body, "memories": body["chunks"]})


def _deleted(body: Mapping[str, Any]) -> int:
    return int(body["deleted"])
