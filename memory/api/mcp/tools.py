"""The tools of an agent: each one serializer in, one function of the API's own, one serializer out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rest_framework.serializers import Serializer

from memory.access.scopes import TokenScope
from memory.api.mcp import shapes, text
from memory.api.mcp.json_schema import input_schema, output_schema
from memory.api.serializers import ChunkOutput, DeletedOutput, ErasureOutput, PageOutput, QueryOutput
from memory.api.views import ERASURE_NOTE
from memory.documents.patches import chunk_patch_from
from memory.documents.shape import documents_from
from memory.erasure import delete_chunk, erase_user
from memory.exceptions import ChunkNotFound
from memory.indexing import index_documents
from memory.listing import StoredChunk, get_chunk, list_chunks
from memory.search.filters import Scope
from memory.search.retrieval import query_memories
from memory.verbs.patching import patch_chunk

TITLE_LENGTH = 80


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool. `run` takes the user id and the valid arguments, and returns what `gives` serializes; `say` makes text
    of what `gives` made of it. Of the hints, `destructive` and `idempotent` mean nothing where it only reads.
    `makes_id`: it makes up an `id` where none is given."""

    name: str
    title: str
    description: str
    takes: type[Serializer[Any]]
    gives: type[Serializer[Any]]
    run: Callable[[str, dict[str, Any]], Any]
    say: Callable[[Mapping[str, Any]], str]
    throttle_scope: str = "other"
    reads: bool = False
    makes_id: bool = False
    destructive: bool = False
    idempotent: bool = False
    erases: bool = False

    @property
    def token_scope(self) -> TokenScope:
        """What a token needs to call it."""
        if self.erases:
            return TokenScope.ERASE
        return TokenScope.READ if self.reads else TokenScope.WRITE

    def for_client(self) -> dict[str, Any]:
        """As `tools/list` shows it."""
        hints = {"readOnlyHint": self.reads, "destructiveHint": self.destructive, "idempotentHint": self.idempotent}
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": input_schema(self.takes),
            "outputSchema": output_schema(self.gives),
            # No tool of ours reaches anything but this service's own store.
            "annotations": {"title": self.title, **hints, "openWorldHint": False},
        }


def _add(user_id: str, arguments: dict[str, Any]) -> dict[str, Any]:
    # What the API takes is JSON, so times are written out again.
    body = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in arguments.items()}
    if "id" in body:
        body["doc_id"] = body.pop("id")
    (stored,) = index_documents(user_id=user_id, documents=documents_from(body))
    return {"id": stored.doc_id, "memory_ids": stored.chunk_ids, "replaced": stored.replaced}


def _search(user_id: str, arguments: dict[str, Any]) -> Any:
    scope = Scope(
        filter=arguments.get("filters"),
        occurred_after=arguments.get("occurred_after"),
        occurred_before=arguments.get("occurred_before"),
    )
    return query_memories(user_id=user_id, query=arguments["query"], top_k=arguments["top_k"], scope=scope)


def _list(user_id: str, arguments: dict[str, Any]) -> Any:
    given = {"after": arguments.pop("cursor", None), "filter": arguments.pop("filters", None)}
    return list_chunks(user_id=user_id, **given, **arguments)


def _get(user_id: str, arguments: dict[str, Any]) -> StoredChunk:
    return get_chunk(user_id=user_id, chunk_id=arguments["memory_id"])


def _update(user_id: str, arguments: dict[str, Any]) -> StoredChunk:
    patch = chunk_patch_from({name: value for name, value in arguments.items() if name != "memory_id"})
    return patch_chunk(user_id=user_id, chunk_id=arguments["memory_id"], patch=patch)


def _delete(user_id: str, arguments: dict[str, Any]) -> dict[str, int]:
    if not delete_chunk(user_id=user_id, chunk_id=arguments["memory_id"]):
        raise ChunkNotFound(ChunkNotFound.__doc__)
    return {"deleted": 1}


def _delete_all(user_id: str, arguments: dict[str, Any]) -> dict[str, Any]:
    receipt = erase_user(user_id=user_id)
    return {"deleted": receipt.deleted, "remaining": receipt.remaining, "note": ERASURE_NOTE}


def _search_results(user_id: str, arguments: dict[str, Any]) -> dict[str, Any]:
    found = query_memories(user_id=user_id, query=arguments["query"], top_k=shapes.DEFAULT_TOP_K).matches
    return {"results": [{"id": match.id, "title": _title(match.text), "url": _address(match.id)} for match in found]}


def _fetched(user_id: str, arguments: dict[str, Any]) -> dict[str, Any]:
    chunk = get_chunk(user_id=user_id, chunk_id=arguments["id"])
    title, address = _title(chunk.text), _address(chunk.id)
    return {"id": chunk.id, "title": title, "text": chunk.text, "url": address, "metadata": chunk.metadata}


def _title(content: str) -> str:
    return " ".join(content.split())[:TITLE_LENGTH]


def _address(chunk_id: Any) -> str:
    # A name, not a web page: memories are read with a token only.
    return f"urn:uuid:{chunk_id}"


def _say_added(result: Mapping[str, Any]) -> str:
    return f"Stored as document {result['id']}: memory_id {', '.join(result['memory_ids'])}."


def _say_found(result: Mapping[str, Any]) -> str:
    return text.memories(result["matches"], _left_out(result))


def _say_page(result: Mapping[str, Any]) -> str:
    cursor = result["next_cursor"]
    more = f"There are more: call again with cursor {cursor}." if cursor else ""
    return text.memories(result["memories"], " ".join(filter(None, (more, _left_out(result)))))


def _left_out(result: Mapping[str, Any]) -> str:
    count = result["integrity_failures"]
    return f"{count} memories were left out: their seals do not open." if count else ""


def _say_deleted(result: Mapping[str, Any]) -> str:
    return f"Deleted {result['deleted']}."


def _say_erased(result: Mapping[str, Any]) -> str:
    return f"Deleted {result['deleted'].get('memory_chunks', 0)} memories. {result['note']}"


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            name="add_memory",
            title="Add a memory",
            description="Store something worth remembering about the user. Long text is split. An `id` that exists is "
            "replaced whole.",
            takes=shapes.AddInput,
            gives=shapes.AddedOutput,
            run=_add,
            say=_say_added,
            throttle_scope="index",
            makes_id=True,
            destructive=True,  # an id that exists is replaced
        ),
        Tool(
            name="search_memories",
            title="Search memories",
            description="Find what is known about something, best first. Ask in plain words.",
            takes=shapes.SearchInput,
            gives=QueryOutput,
            run=_search,
            say=_say_found,
            throttle_scope="query",
            reads=True,
        ),
        Tool(
            name="get_memories",
            title="List memories",
            description="List memories, newest first, a page at a time.",
            takes=shapes.ListInput,
            gives=PageOutput,
            run=_list,
            say=_say_page,
            reads=True,
        ),
        Tool(
            name="get_memory",
            title="Read a memory",
            description="Read one memory by its memory_id.",
            takes=shapes.MemoryInput,
            gives=ChunkOutput,
            run=_get,
            say=lambda result: text.memories([result]),
            reads=True,
        ),
        Tool(
            name="update_memory",
            title="Change a memory",
            description="Change the text or the metadata of one memory; its memory_id stays.",
            takes=shapes.UpdateInput,
            gives=ChunkOutput,
            run=_update,
            say=lambda result: text.memories([result]),
            throttle_scope="index",
            destructive=True,
            idempotent=True,
        ),
        Tool(
            name="delete_memory",
            title="Delete a memory",
            description="Delete one memory by its memory_id.",
            takes=shapes.MemoryInput,
            gives=DeletedOutput,
            run=_delete,
            say=_say_deleted,
            destructive=True,
            erases=True,
            idempotent=True,
        ),
        Tool(
            name="delete_all_memories",
            title="Delete all memories",
            description="Delete every memory of this user, for good. Only when the user asked for exactly that.",
            takes=shapes.DeleteAllInput,
            gives=ErasureOutput,
            run=_delete_all,
            say=_say_erased,
            destructive=True,
            erases=True,
            idempotent=True,
        ),
        Tool(
            name="search",
            title="Search",
            description="Find memories as results to be fetched, in the form that ChatGPT's connectors expect.",
            takes=shapes.ConnectorSearchInput,
            gives=shapes.ConnectorSearchOutput,
            run=_search_results,
            say=text.as_json,
            throttle_scope="query",
            reads=True,
        ),
        Tool(
            name="fetch",
            title="Fetch",
            description="Read one result of `search`, in the form that ChatGPT's connectors expect.",
            takes=shapes.ConnectorFetchInput,
            gives=shapes.ConnectorFetchOutput,
            run=_fetched,
            say=text.as_json,
            reads=True,
        ),
    )
}
