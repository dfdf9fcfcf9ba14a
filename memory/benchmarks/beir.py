"""Reads a collection in BEIR's layout (Thakur et al., 2021): corpus.jsonl, queries.jsonl, qrels/<split>.tsv."""

import json
from collections.abc import Iterator
from csv import DictReader
from dataclasses import dataclass
from pathlib import Path

from memory.documents.document import Document
from memory.documents.lines import BadLine, parse_line


class BadDataset(ValueError):
    """The folder is no BEIR collection; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Query:
    """A question and the documents that answer it, {doc_id: grade}."""

    query_id: str
    text: str
    judged: dict[str, int]


@dataclass(frozen=True)
class Collection:
    """Documents, chunked as an import chunks them, and the judged questions of one split."""

    name: str
    documents: list[Document]
    queries: list[Query]


def read_collection(directory: Path, split: str = "test", limit_queries: int | None = None) -> Collection:
    """Read a collection. Raises BadDataset."""
    judged = dict(_judged(directory / "qrels" / f"{split}.tsv"))
    queries = list(_queries(directory / "queries.jsonl", judged))
    if not queries:
        raise BadDataset(f"{directory}: no query of queries.jsonl is judged in qrels/{split}.tsv.")
    return Collection(directory.resolve().name, list(_documents(directory / "corpus.jsonl")), queries[:limit_queries])


def _queries(path: Path, judged: dict[str, dict[str, int]]) -> Iterator[Query]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            value = json.loads(line)
            if value["_id"] in judged:
                yield Query(value["_id"], value["text"], judged[value["_id"]])
        except (ValueError, KeyError, TypeError):
            raise BadDataset(f"{path}, line {number}: is no object with _id and text.") from None


def _documents(path: Path) -> Iterator[Document]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            yield parse_line(line)
        except BadLine as reason:
            raise BadDataset(f"{path}, line {number}: {reason}") from None


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
