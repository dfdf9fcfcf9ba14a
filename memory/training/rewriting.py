"""Rewrites plain passages as memories of conversations: sentence windows, and turns with speaker and date.

Collections that may be used for training are articles, reviews and posts. Memories are short, and begin with who spoke
and when. Names and forms of the held-out conversations are none of those that training sees.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from memory.index.context import header

# A sentence ends at a full stop, question or exclamation mark, before white space and no small letter.
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[^a-z\s])")
# Who speaks in a post or review, as its questions name them.
_NARRATOR = re.compile(
    r"\b(?:the|this)\s+(?:original\s+)?(?:poster|author|writer|reviewer|user|speaker|narrator|op|commenter|redditor)\b",
    re.IGNORECASE,
)
WORDS_A_WINDOW = 60

_NAMES = """
Alice Ben Carla David Emma Felix Grace Hugo Irene Jack Karen Liam Maria Noah Olivia Peter Quinn Rosa Samuel Tina Umar
Vera Walter Xenia Yusuf Zoe Anna Boris Chloe Daniel Elena Frank Gina Henry Isabel Jonas Kate Leo Mia Nina Oscar Paula
Ralph Sofia Tom Ursula Victor Wendy Aisha Carlos Dmitri Fatima Hiro Ingrid Jamal Kenji Lucia Mei Omar Priya Ravi Sven
Thandi Wei
"""
_HELD_OUT_NAMES = """
Abigail Bruno Celeste Dexter Edith Fergus Gwen Hassan Imogen Jasper Keisha Lorenzo Matilda Nikhil Odette Phineas
"""
SPEAKERS, HELD_OUT_SPEAKERS = tuple(_NAMES.split()), tuple(_HELD_OUT_NAMES.split())


@dataclass(frozen=True, slots=True)
class Turn:
    """Who said something, and when."""

    speaker: str
    day: datetime

    def line(self, form: int) -> str:
        """One of FORMS ways to write both down in front of a text: the product's header in half of them, others so that
        no model learns its commas by heart; the last leaves the date out.
        """
        day, iso = header("", "", self.day).removesuffix(":"), f"{self.day:%Y-%m-%d}"
        return (
            header("", self.speaker, self.day),
            header("Conversation", self.speaker, self.day),
            header("Chat", self.speaker, self.day),
            f"[{iso}] {self.speaker}:",
            f"({day}) {self.speaker} said:",
            f"{self.speaker}:",
        )[form % FORMS]


FORMS = 6


def sentences(text: str) -> list[str]:
    """The sentences of a text in order, none of them empty."""
    return [part for line in text.splitlines() for piece in _SENTENCE_END.split(line) if (part := piece.strip())]


def windows(text: str, generator: random.Random) -> list[str]:
    """A text as consecutive windows of one to four sentences and about 60 words at most, nothing left out."""
    found: list[str] = []
    current: list[str] = []
    wanted = generator.randint(1, 4)
    for sentence in sentences(text):
        words = sum(len(each.split()) for each in current) + len(sentence.split())
        if current and (len(current) >= wanted or words > WORDS_A_WINDOW):
            found.append(" ".join(current))
            current, wanted = [], generator.randint(1, 4)
        current.append(sentence)
    return [*found, " ".join(current)] if current else found


def turn(generator: random.Random, speakers: Sequence[str] = SPEAKERS) -> Turn:
    """A speaker and a day of the years 2020 to 2025."""
    day = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=generator.randrange(6 * 365))
    return Turn(generator.choice(speakers), day)


def asked_of(question: str, speaker: str) -> str:
    """A question about "the author" or "the poster", asked about the speaker by name."""
    return _NARRATOR.sub(lambda _: speaker, question)
