"""Builds a conversational collection: dialogues in which each turn is a chunk, and questions that one turn answers.

Made from `train/squad_sentence_pairs` (questions, and the sentence that answers each), because these are the judgements
of single sentences that the data folder has. Sentences that follow each other there come from one paragraph, so they
become what a speaker tells, turn after turn; the other one reacts, and before some of the turns asks one of the
questions that the sentence answers. Such a question is spent: it is never asked of the collection. What remains is
asked, and its `type` says whether its turn was `asked` for or merely `told`.

    conversation   a user's memory, two speakers     c07
    session        a document with a date            c07:s03
    turn           a chunk with its speaker          c07:s03/12

Nothing of it is copied into the repository: the collection is written where the caller says, in BEIR's layout, the same
one for the same seed.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

PAIRS = Path("train", "squad_sentence_pairs", "pairs.jsonl")
SPLIT = "test"
CONVERSATIONS = 10
SESSIONS = 24
STRETCH = 8  # sentences that a speaker tells before the other one does
ASKED = 0.5  # of the turns with a question to spare
REACTIONS = 0.35
STARTED = datetime.fromisoformat("2022-01-09T18:00:00+00:00")
NAMES = ("Alice", "Bruno", "Chiara", "Deniz", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Katya", "Luis")
PHRASES = (
    "Oh, I did not know that.",
    "Really? Tell me more.",
    "That is what I thought, too.",
    "Wow, that is interesting!",
    "I see. Go on.",
    "Ha, my brother told me the same the other day.",
    "Good to know, thanks.",
)


@dataclass(frozen=True)
class Fact:
    """A sentence and the questions that it answers."""

    sentence: str
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Turn:
    """What one speaker says; `asks` are the questions left for the collection, `type` how the turn came about."""

    author: str
    text: str
    asks: tuple[str, ...] = ()
    type: str = "told"


def build_conversations(data: Path, target: Path, *, seed: int = 0) -> dict[str, int]:
    """Write the collection into `target`; returns how many conversations, turns and questions it has.

    Raises OSError where the data is not there.
    """
    facts = list(read_facts(data / PAIRS))
    generator = random.Random(seed)  # noqa: S311
    documents: list[dict[str, Any]] = []
    queries: list[dict[str, Any]] = []
    judged = ["query-id\tcorpus-id\tscore"]
    parts = _pieces(facts, SESSIONS * 2 * STRETCH)[:CONVERSATIONS]
    for number, told in enumerate(parts):
        for doc_id, date, turns in _sessions(f"c{number:02}", told, generator):
            documents.append(_document(doc_id, date, turns))
            for place, turn in enumerate(turns):
                for text in turn.asks[:1]:
                    query_id = f"{doc_id}/{place}"
                    queries.append({"_id": query_id, "text": text, "metadata": {"type": turn.type}})
                    judged.append(f"{query_id}\t{doc_id}/{place}\t1")
    _write(target / "corpus.jsonl", map(json.dumps, documents))
    _write(target / "queries.jsonl", map(json.dumps, queries))
    _write(target / "qrels" / "test.tsv", judged)
    spoken = sum(len(document["chunks"]) for document in documents)
    return {"conversations": len(parts), "turns": spoken, "questions": len(queries)}


def read_facts(path: Path) -> Iterator[Fact]:
    """The sentences of the split in the file's order, each with its questions."""
    with path.open(encoding="utf-8") as lines:
        pairs = [pair for pair in map(json.loads, lines) if pair["split"] == SPLIT]
    for sentence, group in groupby(pairs, key=lambda pair: pair["passage"]):
        yield Fact(sentence, tuple(dict.fromkeys(pair["query"] for pair in group)))


def _sessions(
    conversation: str, facts: Sequence[Fact], generator: random.Random
) -> Iterator[tuple[str, datetime, list[Turn]]]:
    """Each session's id, date and turns."""
    speakers = generator.sample(NAMES, 2)
    date = STARTED + timedelta(days=generator.randrange(300))
    for number, told in enumerate(_pieces(facts, 2 * STRETCH)):
        date += timedelta(days=generator.randint(2, 25), hours=generator.randint(-3, 3))
        turns = [turn for part in _pieces(told, STRETCH) for turn in _stretch(part, speakers, generator)]
        speakers.reverse()
        yield f"{conversation}:s{number:02}", date, turns


def _stretch(facts: Sequence[Fact], speakers: Sequence[str], generator: random.Random) -> Iterator[Turn]:
    """One tells, the other asks and reacts."""
    teller, listener = speakers
    for fact in facts:
        asked = len(fact.questions) > 1 and generator.random() < ASKED
        if asked:
            yield Turn(listener, fact.questions[0])
        yield Turn(teller, fact.sentence, fact.questions[asked:], "asked" if asked else "told")
        if generator.random() < REACTIONS:
            yield Turn(listener, generator.choice(PHRASES))


def _document(doc_id: str, date: datetime, turns: Sequence[Turn]) -> dict[str, Any]:
    chunks = [{"text": turn.text, "author": turn.author} for turn in turns]
    return {"doc_id": doc_id, "occurred_at": date.isoformat(), "chunks": chunks}


def _pieces(facts: Sequence[Fact], size: int) -> list[Sequence[Fact]]:
    return [facts[first : first + size] for first in range(0, len(facts), size)]


def _write(path: Path, lines: Iterator[str] | Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
