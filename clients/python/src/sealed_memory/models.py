"""What the service takes and gives. Members that this version does not know are left out: newer services work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self


class _Answered:
    """A dataclass made from an answer's JSON."""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        known = {each.name for each in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: _read(name, value) for name, value in body.items() if name in known})


def _read(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name.endswith("_at") and isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document to store: `text`, which is split when it is long, or `chunks` (texts), which are kept as they are.

    A `doc_id` that exists is replaced whole.
    """

    text: str | None = field(default=None, repr=False)
    chunks: Sequence[str | Mapping[str, Any]] | None = field(default=None, repr=False)
    doc_id: str | None = None
    source: str | None = None
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    title: str | None = field(default=None, repr=False)
    occurred_at: datetime | None = None
    expires_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: as_json(value) for name, value in given.items() if value is not None}


def as_json(value: Any) -> Any:
    """Times as ISO 8601, sequences as lists; everything else as it is."""
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


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
class Match(Memory):
    """A found chunk. `score`: the cross-encoder's, None where it did not run."""

    score: float | None = None
    retrieval_score: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The matches of a query, best first, and what is to be known about them."""

    matches: list[Match]
    reranked: bool
    skip_reason: str | None
    truncated: bool
    integrity_failures: int
    degraded: str | None
    timings_ms: dict[str, float]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        return cls(
            matches=[Match.of(each) for each in body["matches"]],
            reranked=body.get("reranked", False),
            skip_reason=body.get("skip_reason"),
            truncated=body.get("truncated", False),
            integrity_failures=body.get("integrity_failures", 0),
            degraded=body.get("degraded"),
            timings_ms=body.get("timings_ms", {}),
        )


@dataclass(frozen=True, kw_only=True)
class Page:
    """Memories, newest first; `next_cursor` is None on the last page."""

    memories: list[Memory]
    next_cursor: str | None
    integrity_failures: int

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        memories = [Memory.of(each) for each in body["memories"]]
        return cls(
            memories=memories, next_cursor=body["next_cursor"], integrity_failures=body.get("integrity_failures", 0)
        )


@dataclass(frozen=True, kw_only=True)
class ErasureReceipt(_Answered):
    """Rows deleted and rows left, by table, and what else still holds sealed rows."""

    deleted: dict[str, int]
    remaining: dict[str, int]
    note: str
