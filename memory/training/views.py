"""Views of a collection: its passages cut and written as memories are, each view searched by itself.

    windows     windows of one to four sentences, a share of the documents as turns of a conversation
    documents   whole documents with their titles, in chunks as the product cuts them
    paragraphs  what follows each other in a collection of sentences, put together again
    statements  a sentence taken out of a document, which the rest of it has to be found by

A view is cut into tenants: a question is asked among the texts of its own.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from memory.index.chunking import split_text
from memory.index.context import header
from memory.training.collections import Passage, Question
from memory.training.rewriting import FORMS, SPEAKERS, asked_of, sentences, turn, windows

CHUNKS_A_DOCUMENT = 2  # of a long one: its beginning tells what it is about
CHARACTERS_OF_A_PARAGRAPH = 700
WORDS_OF_A_STATEMENT = range(8, 31)


@dataclass
class View:
    """Texts with the numbers of their documents, and questions with the numbers of the documents that answer each."""

    kind: str
    texts: list[str] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    answers: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, document: int, texts: Sequence[str]) -> None:
        self.texts += texts
        self.documents += [document] * len(texts)

    def ask(self, question: str, *documents: int) -> None:
        self.questions.append(question)
        self.answers.append(documents)


def windows_view(
    kind: str,
    passages: Sequence[Passage],
    questions: Sequence[Question],
    *,
    turns: float,
    seed: int,
    speakers: Sequence[str] = SPEAKERS,
) -> View:
    """Sentence windows; of a share `turns` of the documents each window becomes a turn of one speaker on one day."""
    view, generator = View(kind), random.Random(seed)  # noqa: S311  (here and below: no secret, but repeatable)
    asked = _by_document(questions)
    for document, passage in enumerate(passages):
        said, form = turn(generator, speakers), generator.randrange(FORMS)
        cut = windows(passage.text, generator)
        spoken = generator.random() < turns
        view.add(document, [f"{said.line(form)} {text}" for text in cut] if spoken else cut)
        for question in asked.get(passage.doc_id, ()):
            view.ask(asked_of(question, said.speaker) if spoken else question, document)
    return view


def documents_view(kind: str, passages: Sequence[Passage], questions: Sequence[Question]) -> View:
    """Whole documents, their titles in front."""
    view, asked = View(kind), _by_document(questions)
    for document, passage in enumerate(passages):
        view.add(document, _chunks(passage))
        for question in asked.get(passage.doc_id, ()):
            view.ask(question, document)
    return view


def paragraphs_view(kind: str, passages: Sequence[Passage], questions: Sequence[Question]) -> View:
    """Neighbouring sentences, mostly of one article, as paragraphs of CHARACTERS_OF_A_PARAGRAPH."""
    view, asked = View(kind), _by_document(questions)
    for document, parts in enumerate(_paragraphs(passages)):
        view.add(document, [" ".join(part.text for part in parts)])
        for question in (each for part in parts for each in asked.get(part.doc_id, ())):
            view.ask(question, document)
    return view


def statements_view(kind: str, passages: Sequence[Passage], *, seed: int) -> View:
    """One sentence of each long document asks for the rest of it (Lee et al., Latent retrieval, ACL 2019)."""
    view, generator = View(kind), random.Random(seed)  # noqa: S311
    for document, passage in enumerate(passages):
        parts = sentences(passage.text)
        telling = [place for place, each in enumerate(parts) if len(each.split()) in WORDS_OF_A_STATEMENT]
        if len(parts) > 3 and telling:
            place = generator.choice(telling)
            view.ask(parts.pop(place), document)
        view.add(document, _chunks(Passage(passage.doc_id, passage.title, " ".join(parts))))
    return view


def conversations(
    kind: str,
    passages: Sequence[Passage],
    questions: Sequence[Question],
    *,
    size: int,
    speakers: Sequence[str],
    seed: int,
) -> Iterator[View]:
    """Conversations of two people each: `size` documents, every one said by one of them on one day, in windows."""
    generator = random.Random(seed)  # noqa: S311
    shuffled = list(passages)
    generator.shuffle(shuffled)
    for start in range(0, len(shuffled), size):
        pair = generator.sample(list(speakers), 2)
        yield windows_view(
            kind, shuffled[start : start + size], questions, turns=1.0, seed=generator.randrange(2**32), speakers=pair
        )


def _paragraphs(passages: Sequence[Passage]) -> Iterator[list[Passage]]:
    parts: list[Passage] = []
    for passage in passages:
        parts.append(passage)
        if sum(len(part.text) for part in parts) >= CHARACTERS_OF_A_PARAGRAPH:
            yield parts
            parts = []
    if parts:
        yield parts


def _chunks(passage: Passage) -> list[str]:
    line = header(passage.title, "", None)
    chunks = [chunk for _, chunk in zip(range(CHUNKS_A_DOCUMENT), split_text(passage.text), strict=False)]
    return [f"{line} {chunk}" for chunk in chunks] if line else chunks


def _by_document(questions: Sequence[Question]) -> dict[str, list[str]]:
    asked: dict[str, list[str]] = {}
    for question in questions:
        asked.setdefault(question.doc_id, []).append(question.text)
    return asked
