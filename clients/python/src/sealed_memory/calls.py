"""The verbs of the API as data: one request each and how its answer is read. Both clients send these."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from sealed_memory.models import Answer, Document, ErasureReceipt, IndexedDocument, Memory, Page, as_json

T = TypeVar("T")
API = "/api/v1"


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and what makes a result of its JSON."""

    method: str
    path: str
    read: Callable[[Any], T]
    body: Any = field(default=None, repr=False)
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)


def index(documents: Sequence[Document]) -> Call[list[IndexedDocument]]:
    body = {"documents": [document.as_json() for document in documents]}
    return Call("POST", f"{API}/memories/index", lambda given: _each(IndexedDocument.of, given["documents"]), body)


def query(text: str, top_k: int, options: Mapping[str, Any]) -> Call[Answer]:
    return Call("POST", f"{API}/memories/query", Answer.of, {"query": text, "top_k": top_k, **_given(options)})


def page(options: Mapping[str, Any]) -> Call[Page]:
    return Call("GET", f"{API}/memories", Page.of, parameters=_given(options))


def get(memory_id: str) -> Call[Memory]:
    return Call("GET", _memory(memory_id), Memory.of)


def update(memory_id: str, changes: Mapping[str, Any]) -> Call[Memory]:
    return Call("PATCH", _memory(memory_id), Memory.of, dict(_given(changes)))


def delete(memory_id: str) -> Call[int]:
    return Call("DELETE", _memory(memory_id), _deleted)


def document(doc_id: str, cursor: str | None) -> Call[tuple[list[Memory], str | None]]:
    """A page of a document's memories in its order, and the cursor of the next."""
    return Call("GET", _document(doc_id), _document_page, parameters=_given({"cursor": cursor}))


def delete_document(doc_id: str) -> Call[int]:
    return Call("DELETE", _document(doc_id), _deleted)


def erase() -> Call[ErasureReceipt]:
    return Call("DELETE", f"{API}/memories", ErasureReceipt.of)


def _memory(memory_id: str) -> str:
    return f"{API}/memories/{quote(str(memory_id), safe='')}"


def _document(doc_id: str) -> str:
    return f"{API}/documents/{quote(doc_id, safe='')}"


def _document_page(body: Mapping[str, Any]) -> tuple[list[Memory], str | None]:
    return _each(Memory.of, body["chunks"]), body["next_cursor"]


def _deleted(body: Mapping[str, Any]) -> int:
    return int(body["deleted"])


def _each(read: Callable[[Any], T], bodies: Iterable[Any]) -> list[T]:
    return [read(body) for body in bodies]


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: as_json(value) for name, value in options.items() if value is not None}
