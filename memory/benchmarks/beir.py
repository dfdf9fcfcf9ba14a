"""Reads a collection in BEIR's layout (Thakur et al., 2021): corpus.jsonl, queries.jsonl, qrels/<split>.tsv.

A line of corpus.jsonl may also be a document as the API takes it, with `chunks`, which then stay as they are. A query
may carry a `type`, beside its text or in its metadata. Documents without any text, which some BEIR collections have,
are left out and counted.
"""

import json
import re
from collections.abc import Iterator
from csv import DictReader
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from memory.documents.document import Chunk, Document
from memory.documents.lines import BadLine, parse_line
from memory.index.context import embedded_text
from memory.index.recipe import configured

# As decision 14 cut the sentences of SQuADShifts.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class BadDataset(ValueError):
    """The folder is no BEIR collection; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Query:
    """A question and what answers it, {doc_id, or doc_id/chunk_index: grade}; `type` where its line names one."""

    query_id: str
    text: str
    judged: dict[str, int]
    type: str | None = None


@dataclass(frozen=True)
class Collection:
    """Documents, chunked as an import chunks them, and the judged questions of one split. `empty`: ids left out."""

    name: str
    split: str
    documents: list[Document]
    queries: list[Query]
    empty: list[str] = field(default_factory=list)

    def texts(self) -> list[str]:
        """What is embedded of each chunk, in order: its text, behind the header of its context."""
        form = configured().header
        return [
            embedded_text(document.plain(place), form)
            for document in self.documents
            for place in range(len(document.chunks))
        ]

    def by_sentence(self) -> "Collection":
        """The same with a chunk a sentence."""
        return replace(self, documents=[_by_sentence(document) for document in self.documents])


def read_collection(directory: Path, split: str = "test", limit_queries: int | None = None) -> Collection:
    """Read a collection. Raises BadDataset."""
    path = directory / "qrels" / f"{split}.tsv"
    if not path.is_file() and (others := sorted(each.stem for each in directory.glob("qrels/*.tsv"))):
        raise BadDataset(f"{path}: No such file. Splits of this collection: {', '.join(others)}.")
    judged = dict(_judged(path))
    queries = list(_queries(directory / "queries.jsonl", judged))
    if not queries:
        raise BadDataset(f"{directory}: no query of queries.jsonl is judged in qrels/{split}.tsv.")
    documents, empty = _documents(directory / "corpus.jsonl")
    return Collection(directory.resolve().name, split, documents, queries[:limit_queries], empty)


def _queries(path: Path, judged: dict[str, dict[str, int]]) -> Iterator[Query]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            value = json.loads(line)
            if value["_id"] in judged:
                yield Query(value["_id"], value["text"], judged[value["_id"]], _type(value))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadDataset(f"{path}, line {number}: is no object with _id and text.") from None


def _type(value: dict[str, Any]) -> str | None:
    named = value.get("type", (value.get("metadata") or {}).get("type"))
    return None if named is None else str(named)


def _documents(path: Path) -> tuple[list[Document], list[str]]:
    """The documents, and the ids of those without any text."""
    documents, empty = [], []
    for number, line in enumerate(_lines(path), start=1):
        try:
            nameless = _id_without_text(line)
            if nameless is None:
                documents.append(parse_line(line))
            else:
                empty.append(nameless)
        except BadLine as reason:
            raise BadDataset(f"{path}, line {number}: {reason}") from None
    return documents, empty


def _id_without_text(line: bytes) -> str | None:
    """The id of a BEIR document that has neither text nor title, else None."""
    try:
        value = json.loads(line)
    except ValueError:
        return None  # parse_line says what is wrong with it
    if not isinstance(value, dict) or not isinstance(value.get("_id"), str):
        return None
    texts = [value.get(name) or "" for name in ("title", "text")]
    return value["_id"] if all(isinstance(text, str) and not text.strip() for text in texts) else None


def _by_sentence(document: Document) -> Document:
    pieces = [piece for chunk in document.chunks for piece in _SENTENCE_END.split(chunk.text)]
    return replace(document, chunks=tuple(Chunk(piece) for piece in pieces if piece.strip()))


def _judged(path: Path) -> Iterator[tuple[str, dict[str, int]]]:
    found: dict[str, dict[str, int]] = {}
    for row in DictReader((line.decode("utf-8") for line in _lines(path)), delimiter="\t"):
        try:
            found.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
        except (KeyError, TypeError, ValueError):
            raise BadDataset(f"{path}: a line is not query-id, corpus-id and a whole score.") from None
    return iter((query, grades) for query, grades in found.items() if any(grade > 0 for grade in grades.values()))


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.strip())
    except OSError as error:
        raise BadDataset(f"{path}: {error.strerror}.") from None
