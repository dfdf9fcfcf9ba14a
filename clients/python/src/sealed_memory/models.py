"""What the service takes and gives. Members that this version does not know are left out: newer services work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, Self, TypedDict, TypeVar

from sealed_memory.errors import ServerError, error_from

T = TypeVar("T")


def as_json(value: Any) -> Any:
    """Times as ISO 8601, sequences as lists; everything else as it is."""
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


# --- Given ------------------------------------------------------------------------------------------------------------


class _Given:
    """A dataclass to be sent, without the members that are None."""

    def as_json(self) -> dict[str, Any]:
        given = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        return {name: as_json(value) for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Chunk(_Given):
    """A part of a document that stays in one piece: who said it, and the time it is about, if not the document's."""

    text: str = field(repr=False)
    author: str | None = field(default=None, repr=False)
    occurred_at: datetime | None = None
    embedding: Sequence[float] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Document(_Given):
    """A document to store: `text`, which is split when it is long, or `chunks`, which are kept as they are.

    A `doc_id` that exists is replaced whole.
    """

    text: str | None = field(default=None, repr=False)
    chunks: Sequence[str | Chunk | Mapping[str, Any]] | None = field(default=None, repr=False)
    doc_id: str | None = None
    source: str | None = None
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    title: str | None = field(default=None, repr=False)
    occurred_at: datetime | None = None
    expires_at: datetime | None = None
    embedding: Sequence[float] | None = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        given = super().as_json()
        if self.chunks is not None:
            given["chunks"] = [each.as_json() if isinstance(each, Chunk) else each for each in self.chunks]
        return given


class DocumentOptions(TypedDict, total=False):
    """What can be told about one text to store: the members of Document."""

    doc_id: str | None
    source: str | None
    metadata: Mapping[str, Any] | None
    title: str | None
    occurred_at: datetime | None
    expires_at: datetime | None
    embedding: Sequence[float] | None


class QueryOptions(TypedDict, total=False):
    """What narrows a query, and what its answer holds. `…_after` is inclusive, `…_before` exclusive.

    filter: `{"source": "chat", "OR": [{"metadata.kind": "note"}, …]}`, with AND, OR, NOT, eq, ne, in, exists, gt, gte,
        lt, lte. What the service does not support is refused by its name.
    context: how many chunks before and after each match to add, 0 to 10.
    rerank: False leaves the order of retrieval. explain: add the parts of each score.
    embedding: of the query; the service makes it otherwise. asked_at: when it is asked: what "last week" means.
    """

    filter: Mapping[str, Any] | None
    source: str | None
    doc_id: str | None
    metadata: Mapping[str, Any] | None
    created_after: datetime | None
    created_before: datetime | None
    occurred_after: datetime | None
    occurred_before: datetime | None
    context: int | None
    rerank: bool | None
    explain: bool | None
    embedding: Sequence[float] | None
    asked_at: datetime | None


class ListOptions(TypedDict, total=False):
    """What narrows a list, and its order: `-created_at` (newest first, by default), `occurred_at` or `-occurred_at`.

    filter: as in QueryOptions.
    """

    filter: Mapping[str, Any] | None
    source: str | None
    doc_id: str | None
    occurred_after: datetime | None
    occurred_before: datetime | None
    sort: Literal["-created_at", "occurred_at", "-occurred_at"] | None


class MemoryChanges(TypedDict, total=False):
    """What changes of a memory: what is not named stays, None takes away. `metadata` is merged (RFC 7396)."""

    text: str
    metadata: Mapping[str, Any] | None
    author: str | None
    occurred_at: datetime | None
    embedding: Sequence[float]


class DocumentChanges(TypedDict, total=False):
    """What changes of every memory of a document, as MemoryChanges. A new `text` is split anew."""

    text: str
    metadata: Mapping[str, Any] | None
    source: str
    title: str | None
    occurred_at: datetime | None
    expires_at: datetime | None


# --- Answered ---------------------------------------------------------------------------------------------------------


def each_of(read: Callable[[Any], T], bodies: Sequence[Any]) -> list[T]:
    return [read(body) for body in bodies]


class _Answered:
    """A dataclass made from an answer's JSON."""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        known = {each.name for each in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: cls._read(name, value) for name, value in body.items() if name in known})

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        """A member's value out of its JSON. None stays None."""
        if name.endswith("_at") and isinstance(value, str):
            return datetime.fromisoformat(value)
        read = cls._readers().get(name)
        return value if read is None or value is None else read(value)

    @classmethod
    def _readers(cls) -> Mapping[str, Callable[[Any], Any]]:
        """How members are read that are more than JSON."""
        return {}


@dataclass(frozen=True, kw_only=True)
class IndexedDocument(_Answered):
    """A stored document: its chunks' ids in order, and how many older chunks they replaced."""

    doc_id: str
    chunk_ids: list[str]
    replaced: int = 0


@dataclass(frozen=True, kw_only=True)
class Memory(_Answered):
    """A stored chunk."""

    id: str
    doc_id: str
    source: str
    chunk_index: int
    text: str = field(repr=False)
    metadata: dict[str, Any] = field(repr=False)
    created_at: datetime
    title: str | None = field(default=None, repr=False)
    author: str | None = field(default=None, repr=False)
    occurred_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Surroundings(_Answered):
    """The chunks around a match, in the document's order."""

    before: list[Memory]
    after: list[Memory]

    @classmethod
    def _readers(cls) -> Mapping[str, Callable[[Any], Any]]:
        return dict.fromkeys(("before", "after"), lambda value: each_of(Memory.of, value))


@dataclass(frozen=True, kw_only=True)
class Explanation(_Answered):
    """The parts of a retrieval score: cosine, keywords as a share of the best, the neighbours' mean, the time."""

    dense: float
    lexical: float
    neighbours: float = 0.0
    time: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Match(Memory):
    """A found chunk. `score`: the cross-encoder's, None where it did not run. `explanation` and `context` on demand."""

    score: float | None = None
    retrieval_score: float
    explanation: Explanation | None = None
    context: Surroundings | None = field(default=None, repr=False)

    @classmethod
    def _readers(cls) -> Mapping[str, Callable[[Any], Any]]:
        return {"explanation": Explanation.of, "context": Surroundings.of}


@dataclass(frozen=True, kw_only=True)
class Reranker(_Answered):
    """Who had a say in the order of an answer, and how."""

    model: str
    fusion: str


@dataclass(frozen=True, kw_only=True)
class Answer(_Answered):
    """The matches of a query, best first, and what is to be known about them.

    skip_reason: why no cross-encoder had a say. degraded: why keywords alone found these. truncated: there would be
    more, had the answer room. integrity_failures: rows left out because their seal did not open.
    """

    matches: list[Match]
    reranked: bool = False
    reranker: Reranker | None = None
    skip_reason: str | None = None
    degraded: str | None = None
    truncated: bool = False
    integrity_failures: int = 0
    timings_ms: dict[str, float] = field(default_factory=dict)

    @classmethod
    def _readers(cls) -> Mapping[str, Callable[[Any], Any]]:
        return {"matches": lambda value: each_of(Match.of, value), "reranker": Reranker.of}


@dataclass(frozen=True, kw_only=True)
class Page(_Answered):
    """Memories in the order of the list or document; `next_cursor` is None on the last page, and only there.

    integrity_failures: rows left out because their seal did not open.
    """

    memories: list[Memory]
    next_cursor: str | None = None
    integrity_failures: int = 0

    @classmethod
    def _readers(cls) -> Mapping[str, Callable[[Any], Any]]:
        return {"memories": lambda value: each_of(Memory.of, value)}


@dataclass(frozen=True, kw_only=True)
class Found(_Answered):
    """Memories in the order of their ids; `missing`: ids of nothing of this user's; `left_out`: ask again for these."""

    memories: list[Memory]
    missing: list[str]
    left_out: list[str] = field(default_factory=list)
    integrity_failures: int = 0

    @classmethod
    def _readers(cls) -> Mapping[str, Callable[[Any], Any]]:
        return {"memories": lambda value: each_of(Memory.of, value)}


@dataclass(frozen=True, kw_only=True)
class ChangedDocument(_Answered):
    """A changed document: its chunks' ids in order, and how many texts were new and so embedded."""

    doc_id: str
    chunk_ids: list[str]
    embedded: int = 0


@dataclass(frozen=True, kw_only=True)
class ErasureReceipt(_Answered):
    """Rows deleted and rows left, by table, and what else still holds sealed rows."""

    deleted: dict[str, int]
    remaining: dict[str, int]
    note: str


@dataclass(frozen=True, kw_only=True)
class Progress(_Answered):
    """Chunks embedded, and how many there are; None until the texts are split."""

    chunks_done: int = 0
    chunks_total: int | None = None


@dataclass(frozen=True, kw_only=True)
class Operation(_Answered):
    """An index call done later: `pending`, `running`, `succeeded` (with `result`) or `failed` (with `error`)."""

    id: str
    status: str
    progress: Progress
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    result: list[IndexedDocument] | None = None
    error: ServerError | None = None

    @property
    def has_ended(self) -> bool:
        return self.finished_at is not None

    @classmethod
    def _readers(cls) -> Mapping[str, Callable[[Any], Any]]:
        return {
            "progress": Progress.of,
            "result": lambda value: each_of(IndexedDocument.of, value["documents"]),
            "error": lambda value: error_from(int(value.get("status", 500)), value, {}),
        }
