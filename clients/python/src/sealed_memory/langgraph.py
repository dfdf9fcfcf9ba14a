"""LangGraph: its long-term store over the service. `pip install 'sealed-memory[langgraph]'`.

    store = SealedMemoryStore(Client("http://127.0.0.1:8000", token="smem_…"))
    store.put(("memories",), "key", {"text": "The spare key is under the flower pot."})
    store.search(("memories",), query="Where is the spare key?")

An item is a document. Its doc_id is a hash of namespace and key, its metadata holds the value (so up to
MEMORY_MAX_METADATA_BYTES of it), and its chunks are the texts of the fields to be searched. All prefixes of its
namespace are a list under one metadata key, of which the database sees keyed hashes: that is how a prefix is searched.
The service hashes them unless its MEMORY_FILTERABLE_METADATA leaves `langgraph_prefixes` out; then it refuses, by name.

Filters by values are decided here, on what the service found, page by page: it cannot compare what it cannot read.
Only equality with a scalar can be narrowed there, for the keys that `filterable` and that setting name. A search that
has to look at more than `scan_limit` chunks raises ScanLimitExceeded; it never answers with a part.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    get_text_at_path,
    validate_op_namespace,
)

from sealed_memory import calls
from sealed_memory.calls import Steps
from sealed_memory.client import AsyncClient, Client
from sealed_memory.errors import NotFound, SealedMemoryError
from sealed_memory.models import Document, Match, Memory

T = TypeVar("T")
SOURCE = "langgraph"
UNINDEXED = "langgraph:unindexed"
"""The source of items that have no text to be searched."""
PREFIXES = "langgraph_prefixes"
ITEM = "langgraph"
"""The metadata keys of the prefixes and of the item itself."""
NO_TEXT = "(not indexed)"
MOST_DOCUMENTS, MOST_CHUNKS, MOST_BYTES = 100, 500, 2 * 1024 * 1024
"""Of one index call; the service's own limits are no lower."""
MOST_EXCLUDED = 900
"""Documents that a further round of a query can leave out."""
PAGE = 100

Namespace = tuple[str, ...]


class ScanLimitExceeded(SealedMemoryError):
    """More chunks had to be looked at than the store may. Search under a longer prefix, or by a filter that the service
    can narrow (`filterable`); a query can be followed through about 900 documents."""


class SealedMemoryStore(BaseStore):
    """LangGraph's store; with an AsyncClient, its asynchronous methods only.

    user_at: which element of every namespace names the user, for a service's token; None: all of it is one user's.
    fields: which fields of a value are searched, unless `put` says otherwise; `$` is the whole value as JSON.
    filterable: keys of values that MEMORY_FILTERABLE_METADATA names too.
    ttl: `default_ttl` and `refresh_on_read` count; the service itself leaves out and deletes what has expired.
    scan_limit: how many chunks one operation may look at.

    `created_at` of an item is the service's, `updated_at` by this machine's clock. A put that replaces an item in the
    moment in which another process reads it with `refresh_ttl` may get the refreshed expiry.
    """

    supports_ttl = True

    def __init__(
        self,
        client: Client | AsyncClient,
        *,
        user_at: int | None = None,
        fields: Sequence[str] = ("$",),
        filterable: Sequence[str] = (),
        ttl: TTLConfig | None = None,
        scan_limit: int = 10_000,
    ) -> None:
        if {PREFIXES, ITEM} & set(filterable):
            raise ValueError(f"filterable may not name {PREFIXES} or {ITEM}.")
        self.client, self.ttl_config = client, ttl
        self._user_at, self._fields, self._filterable = user_at, tuple(fields), tuple(filterable)
        self._scan_limit = scan_limit

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations: reads first, then the last put of each item.

        A user's puts go in lists of up to a hundred, each of them whole or not at all.
        """
        if not isinstance(self.client, Client):
            raise TypeError("This store has an AsyncClient: use the asynchronous methods.")
        given = list(ops)
        results: list[Result] = [None] * len(given)
        for user, numbered in self._by_user(given).items():
            client = self.client if user is None else self.client.for_user(user)
            for number, result in client.run(self._steps(numbered)).items():
                results[number] = result
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`; with a Client, in a thread."""
        given = list(ops)
        if not isinstance(self.client, AsyncClient):
            return await asyncio.to_thread(self.batch, given)
        results: list[Result] = [None] * len(given)
        for user, numbered in self._by_user(given).items():
            client = self.client if user is None else self.client.for_user(user)
            for number, result in (await client.run(self._steps(numbered))).items():
                results[number] = result
        return results

    # --- Whose ---

    def _by_user(self, ops: Sequence[Op]) -> dict[str | None, dict[int, Op]]:
        """Operations by the user they name, each with its number. Raises ValueError for one that is not valid."""
        sorted_ops: dict[str | None, dict[int, Op]] = {}
        for number, op in enumerate(ops):
            validate_op_namespace(op)
            if isinstance(op, SearchOp):
                check_filter(op.filter or {})
            sorted_ops.setdefault(self._user_of(op), {})[number] = op
        return sorted_ops

    def _user_of(self, op: Op) -> str | None:
        if self._user_at is None:
            return None
        namespace = _literal_prefix(op) if isinstance(op, ListNamespacesOp) else _namespace(op)
        if len(namespace) <= self._user_at:
            raise ValueError(f"Element {self._user_at} of the namespace must name the user.")
        return namespace[self._user_at]

    # --- What is done for one user ---

    def _steps(self, ops: Mapping[int, Op]) -> Steps[dict[int, Result]]:
        puts = {(op.namespace, op.key): op for op in ops.values() if isinstance(op, PutOp)}
        documents = [self._document(op) for op in puts.values() if op.value is not None]
        results: dict[int, Result] = {}
        for number, op in ops.items():
            if isinstance(op, GetOp):
                results[number] = yield from self._get(op)
            elif isinstance(op, SearchOp):
                results[number] = yield from self._search(op)
            elif isinstance(op, ListNamespacesOp):
                results[number] = yield from self._list_namespaces(op)
        for op in puts.values():
            if op.value is None:
                yield from _unless_missing(calls.delete_document(doc_id_of(op.namespace, op.key)))
        for batch in _batches(documents):
            yield from calls.index(documents=batch)
        return results

    def _get(self, op: GetOp) -> Steps[Item | None]:
        doc_id = doc_id_of(op.namespace, op.key)
        page = yield from _unless_missing(calls.document_page(doc_id, limit=1))
        if page is None or not page.memories:
            return None
        (memory,) = page.memories
        if _item(memory) is None:
            return None
        if op.refresh_ttl:
            yield from _refresh(memory)
        return Item(**_members(memory))

    def _search(self, op: SearchOp) -> Steps[list[SearchItem]]:
        found = _Found(op, self._scan_limit)
        asked = bool(op.query and op.query.strip())
        if asked:
            yield from self._rank(op, found)
        if not found.is_enough:
            # What has no text is never found by a question: it follows.
            yield from self._list(
                op.namespace_prefix, op.filter, [UNINDEXED] if asked else [SOURCE, UNINDEXED], found.take
            )
        chosen = found.memories[op.offset : op.offset + op.limit]
        if op.refresh_ttl:
            for memory in chosen:
                yield from _refresh(memory)
        return [
            SearchItem(**_members(each), score=each.retrieval_score if isinstance(each, Match) else None)
            for each in chosen
        ]

    def _rank(self, op: SearchOp, found: "_Found") -> Steps[None]:
        """Rounds of the query, each without the documents of the rounds before, until there are enough."""
        top_k = PAGE if op.filter else max(min(op.offset + op.limit, PAGE), 1)
        narrow = self._narrow(op.namespace_prefix, op.filter, [SOURCE])
        while not found.is_enough:
            others = {"NOT": {"doc_id": {"in": sorted(found.seen)}}} if found.seen else {}
            answer = yield from calls.query(op.query or "", top_k=top_k, filter={**narrow, **others})
            for match in answer.matches:
                found.take(match)
            if len(answer.matches) < top_k and not answer.truncated:
                return
            if len(found.seen) > MOST_EXCLUDED:
                raise ScanLimitExceeded(ScanLimitExceeded.__doc__)
            top_k = PAGE

    def _list(
        self,
        prefix: Namespace,
        value_filter: Mapping[str, Any] | None,
        sources: Sequence[str],
        take: Callable[[Memory], bool],
    ) -> Steps[None]:
        """Give every chunk under a prefix to `take`, newest first, until it returns True."""
        narrow, cursor, more = self._narrow(prefix, value_filter, sources), None, True
        while more:
            page = yield from calls.page(limit=PAGE, filter=narrow, cursor=cursor)
            if any(take(memory) for memory in page.memories):
                return
            cursor, more = page.next_cursor, page.next_cursor is not None

    def _list_namespaces(self, op: ListNamespacesOp) -> Steps[list[Namespace]]:
        conditions = op.match_conditions or ()
        found: set[Namespace] = set()
        looked_at = _Counter(self._scan_limit)

        def take(memory: Memory) -> bool:
            looked_at.count()
            item = _item(memory)
            if item and all(_fits(condition, tuple(item["namespace"])) for condition in conditions):
                found.add(tuple(item["namespace"])[: op.max_depth])
            return False

        yield from self._list(_literal_prefix(op), None, [SOURCE, UNINDEXED], take)
        return sorted(found)[op.offset : op.offset + op.limit]

    # --- Items as documents ---

    def _document(self, op: PutOp) -> Document:
        value = dict(op.value or {})
        texts = self._texts(value, op.index)
        now = datetime.now(UTC).isoformat()
        item = {"namespace": list(op.namespace), "key": op.key, "value": value, "ttl": op.ttl, "updated_at": now}
        copies = {key: value[key] for key in self._filterable if key in value and _is_scalar(value[key])}
        return Document(
            doc_id=doc_id_of(op.namespace, op.key),
            source=SOURCE if texts else UNINDEXED,
            chunks=texts or [NO_TEXT],
            metadata={**copies, PREFIXES: _prefixes(op.namespace), ITEM: item},
            expires_at=None if op.ttl is None else _from_now(op.ttl),
        )

    def _texts(self, value: Mapping[str, Any], index: Any) -> list[str]:
        if index is False:
            return []
        paths = self._fields if index is None else index
        texts = [text for path in paths for text in get_text_at_path(value, path)]
        return [text for text in dict.fromkeys(texts) if text.strip()]

    def _narrow(
        self, prefix: Namespace, value_filter: Mapping[str, Any] | None, sources: Sequence[str]
    ) -> dict[str, Any]:
        """The API's filter for what must hold at least."""
        members: list[dict[str, Any]] = [{"source": {"in": list(sources)}}]
        if prefix:
            members.append({f"metadata.{PREFIXES}": _label(prefix)})
        for key, wanted in (value_filter or {}).items():
            for operator, operand in _operators(wanted):
                if key in self._filterable and operator in ("$eq", "$ne") and _is_scalar(operand):
                    name = f"metadata.{key}"
                    # Items from before `filterable` named the key have no copy of it: they are looked at here.
                    copied = {name: {operator.removeprefix("$"): operand}}
                    members.append({"OR": [copied, {name: {"exists": False}}]})
        return {"AND": members}


def doc_id_of(namespace: Namespace, key: str) -> str:
    """The doc_id of an item: a hash, because a dump of the database shows doc_ids, and they have a longest length."""
    named = json.dumps([list(namespace), key], ensure_ascii=True, separators=(",", ":"))
    return f"{SOURCE}:{hashlib.sha256(named.encode()).hexdigest()}"


# --- Found ------------------------------------------------------------------------------------------------------------


@dataclass
class _Counter:
    most: int
    looked_at: int = 0

    def count(self) -> None:
        self.looked_at += 1
        if self.looked_at > self.most:
            raise ScanLimitExceeded(ScanLimitExceeded.__doc__)


class _Found:
    """The items that a search has found, one chunk of each, in their order."""

    def __init__(self, op: SearchOp, most: int) -> None:
        self._op, self._looked_at = op, _Counter(most)
        self.memories: list[Memory] = []
        self.seen: set[str] = set()

    @property
    def is_enough(self) -> bool:
        return len(self.memories) >= self._op.offset + self._op.limit

    def take(self, memory: Memory) -> bool:
        """Look at a chunk; whether there are enough items now."""
        self._looked_at.count()
        if memory.doc_id not in self.seen and not self.is_enough:
            self.seen.add(memory.doc_id)
            if (item := _item(memory)) is not None and holds(item["value"], self._op.filter or {}):
                self.memories.append(memory)
        return self.is_enough


def _item(memory: Memory) -> dict[str, Any] | None:
    """What is kept of an item; None of a document that is none, or was changed by others until it was none."""
    item = memory.metadata.get(ITEM)
    is_item = isinstance(item, dict) and {"namespace", "key", "value", "updated_at"} <= item.keys()
    return item if is_item else None


def _members(memory: Memory) -> dict[str, Any]:
    item = memory.metadata[ITEM]
    return {
        "namespace": tuple(item["namespace"]),
        "key": item["key"],
        "value": item["value"],
        "created_at": memory.created_at,
        "updated_at": max(datetime.fromisoformat(item["updated_at"]), memory.created_at),
    }


# --- Filters ----------------------------------------------------------------------------------------------------------


def holds(value: Any, wanted: Any) -> bool:
    """Whether a value is as a filter wants it: an object member by member, a list place by place, else equal to it."""
    if isinstance(wanted, Mapping):
        if any(key.startswith("$") for key in wanted):
            return all(OPERATORS[operator](value, operand) for operator, operand in wanted.items())
        return isinstance(value, Mapping) and all(holds(value.get(key), each) for key, each in wanted.items())
    if isinstance(wanted, list | tuple):
        same_length = isinstance(value, list | tuple) and len(value) == len(wanted)
        return same_length and all(holds(have, want) for have, want in zip(value, wanted, strict=True))
    return _equal(value, wanted)


def check_filter(wanted: Any) -> None:
    """Raise ValueError for an operator that does not exist, wherever it stands."""
    if isinstance(wanted, Mapping):
        is_operators = any(key.startswith("$") for key in wanted)
        unknown = sorted(key for key in wanted if key not in OPERATORS) if is_operators else []
        if unknown:
            raise ValueError(f"Unsupported operator: {', '.join(unknown)}")
        for each in wanted.values():
            check_filter(each)


def _equal(value: Any, other: Any) -> bool:
    """As JSON: true is not 1, and 1 is 1.0."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """A comparison of two numbers or of two strings; of anything else it does not hold."""

    def comparison(value: Any, other: Any) -> bool:
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (value, other))
        return (numbers or (isinstance(value, str) and isinstance(other, str))) and compare(value, other)

    return comparison


OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$eq": _equal,
    "$ne": lambda value, other: not _equal(value, other),
    "$gt": _ordered(lambda value, other: value > other),
    "$gte": _ordered(lambda value, other: value >= other),
    "$lt": _ordered(lambda value, other: value < other),
    "$lte": _ordered(lambda value, other: value <= other),
}


def _operators(wanted: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(wanted, Mapping):
        yield from ((key, operand) for key, operand in wanted.items() if key in OPERATORS)
    else:
        yield "$eq", wanted


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


# --- Namespaces -------------------------------------------------------------------------------------------------------


def _namespace(op: Any) -> Namespace:
    return tuple(op.namespace_prefix if isinstance(op, SearchOp) else op.namespace)


def _label(prefix: Namespace) -> str:
    # LangGraph allows no periods in elements.
    return ".".join(prefix)


def _prefixes(namespace: Namespace) -> list[str]:
    return [_label(namespace[:length]) for length in range(1, len(namespace) + 1)]


def _literal_prefix(op: ListNamespacesOp) -> Namespace:
    """The longest prefix without a wildcard that all namespaces of a list must have."""
    prefixes = [tuple(each.path) for each in op.match_conditions or () if each.match_type == "prefix"]
    literal = [path[: path.index("*")] if "*" in path else path for path in prefixes]
    return max(literal, key=len, default=())


def _fits(condition: MatchCondition, namespace: Namespace) -> bool:
    path = tuple(condition.path)
    if condition.match_type == "suffix":
        path, namespace = path[::-1], namespace[::-1]
    elif condition.match_type != "prefix":
        raise ValueError(f"Unsupported match type: {condition.match_type}")
    return len(namespace) >= len(path) and all(want in ("*", have) for have, want in zip(namespace, path, strict=False))


# --- Requests ---------------------------------------------------------------------------------------------------------


def _unless_missing(steps: Steps[T]) -> Steps[T | None]:
    try:
        result: T = yield from steps
    except NotFound:
        return None
    return result


def _refresh(memory: Memory) -> Steps[None]:
    """Let an item that has a time to live begin it anew."""
    ttl = memory.metadata[ITEM].get("ttl")
    if ttl is not None:
        yield from _unless_missing(calls.update_document(memory.doc_id, expires_at=_from_now(ttl)))


def _from_now(minutes: float) -> datetime:
    try:
        return datetime.now(UTC) + timedelta(minutes=minutes)
    except OverflowError:
        raise ValueError("This time to live is too long.") from None


def _batches(documents: Sequence[Document]) -> Iterator[list[Document]]:
    """Documents in lists that the service takes at once."""
    batch: list[Document] = []
    chunks = size = 0
    for document in documents:
        more = len(json.dumps(document.as_json()).encode())
        added = len(document.chunks or ())
        if batch and (len(batch) == MOST_DOCUMENTS or chunks + added > MOST_CHUNKS or size + more > MOST_BYTES):
            yield batch
            batch, chunks, size = [], 0, 0
        batch.append(document)
        chunks, size = chunks + added, size + more
    if batch:
        yield batch
