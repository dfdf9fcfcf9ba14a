"""Judged collections as material for training: passages, questions, and which part of the data each belongs to.

Two layouts are read. BEIR's: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`, all splits together. Sentence pairs:
`pairs.jsonl` of {"query", "passage", "label"}, lower-cased and tokenised as the Penn Treebank is.

A passage and its questions belong to exactly one part, chosen by a hash, so that a collection that grows does not move
what it had: `train`, `dev` (the best checkpoint and the fusion are chosen on it), and `held_out` (only reported). Pairs
of the split from which `memory.benchmarks.conversations` builds its dialogues are held out as a whole.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from memory.benchmarks.beir import BadDataset
from memory.benchmarks.conversations import SPLIT

PAIRS = "pairs.jsonl"
DEV_PERCENT = 12
HELD_OUT_PERCENT = 12
SENTENCES_A_BLOCK = 150  # consecutive sentences of pairs.jsonl are mostly of one article


class Part(StrEnum):
    """What a passage is used for."""

    TRAIN = "train"
    DEV = "dev"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class Passage:
    """A document. `title` is empty where the collection has none that says anything."""

    doc_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the one document that answers it."""

    text: str
    doc_id: str


Parted = list[tuple[Part, Passage]]


@dataclass(frozen=True, slots=True)
class JudgedCollection:
    """One collection, its passages by part. `licence`: as its PROVENANCE.json has it."""

    name: str
    licence: str
    passages: dict[Part, list[Passage]]
    questions: dict[Part, list[Question]]


def read_judged(directory: Path) -> JudgedCollection:
    """The collection in a folder, in either layout. Raises BadDataset."""
    try:
        pairs = directory / PAIRS
        passages, questions = (_from_pairs if pairs.is_file() else _from_beir)(directory)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadDataset(f"{directory}: {type(error).__name__} while reading it: {error}") from None
    if not questions:
        raise BadDataset(f"{directory}: holds no judged question.")
    return _in_parts(directory.resolve().name, _licence(directory / "PROVENANCE.json"), passages, questions)


def part_of(name: str, group: str) -> Part:
    """The part of everything that shares a group: a disease, a document, a stretch of an article."""
    percent = int.from_bytes(hashlib.sha256(f"{name}:{group}".encode()).digest()[:8], "big") % 100
    if percent < HELD_OUT_PERCENT:
        return Part.HELD_OUT
    return Part.DEV if percent < HELD_OUT_PERCENT + DEV_PERCENT else Part.TRAIN


def _licence(path: Path) -> str:
    return str(json.loads(path.read_text(encoding="utf-8")).get("licence")) if path.is_file() else "not stated"


def _in_parts(name: str, licence: str, passages: Parted, questions: list[Question]) -> JudgedCollection:
    part = {passage.doc_id: each for each, passage in passages}
    found = JudgedCollection(name, licence, {each: [] for each in Part}, {each: [] for each in Part})
    for each, passage in passages:
        found.passages[each].append(passage)
    for question in questions:
        if question.doc_id in part:
            found.questions[part[question.doc_id]].append(question)
    return found


def _from_beir(directory: Path) -> tuple[Parted, list[Question]]:
    """Documents of one title, such as all of a disease, are in one part."""
    rows = list(_json_lines(directory / "corpus.jsonl"))
    titles = {row.get("title") or "" for row in rows}
    # "Filtered_Reddit_Comments" above every document is a label of the collection, not a title.
    telling = {title for title in titles if "_" not in title} if len(titles) > 1 else set()
    passages = []
    for row in rows:
        title = row.get("title") or ""
        title = title if title in telling else ""
        if text := row["text"].strip():
            part = part_of(directory.resolve().name, title.lower() or row["_id"])
            passages.append((part, Passage(row["_id"], title, text)))
    answers: dict[str, str] = {}
    for qrels in sorted((directory / "qrels").glob("*.tsv")):
        for line in qrels.read_text(encoding="utf-8").splitlines()[1:]:
            query, document, grade = line.split("\t")
            if int(grade) > 0:
                answers.setdefault(query, document)
    queries = _json_lines(directory / "queries.jsonl")
    return passages, [Question(row["text"], answers[row["_id"]]) for row in queries if row["_id"] in answers]


def _from_pairs(directory: Path) -> tuple[Parted, list[Question]]:
    """Neighbouring sentences, mostly of one article, are in one part."""
    places: dict[str, int] = {}
    questions, passages = [], []
    for row in _json_lines(directory / PAIRS):
        if row["label"] > 0:
            text = untokenised(row["passage"])
            if text not in places:
                places[text] = len(places)
                passages.append((_part_of_pair(row, len(places)), Passage(str(places[text]), "", text)))
            questions.append(Question(untokenised(row["query"]), str(places[text])))
    return passages, questions


def _part_of_pair(row: dict[str, Any], place: int) -> Part:
    if row.get("split") == SPLIT:
        return Part.HELD_OUT
    return Part.TRAIN if part_of(PAIRS, str(place // SENTENCES_A_BLOCK)) is Part.TRAIN else Part.DEV


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


_BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "``": '"', "''": '"', "--": "-"}
_NO_SPACE_BEFORE = re.compile(r"\s+([.,;:!?%)\]]|'(?:s|re|ve|ll|d|m)\b|n't\b)")
_NO_SPACE_AFTER = re.compile(r"([(\[$])\s+")


def untokenised(text: str) -> str:
    """A sentence as it is written: `it 's 5 % ( or so ) .` → `It's 5% (or so).`"""
    joined = " ".join(_BRACKETS.get(word, word) for word in text.split())
    joined = _NO_SPACE_AFTER.sub(r"\1", _NO_SPACE_BEFORE.sub(r"\1", joined))
    return joined[:1].upper() + joined[1:]
