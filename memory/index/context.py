"""The context of a chunk (title, author, time), and the header that is made of it.

    5 June 2022 · Team meeting · Alice: I will bring the projector.

Header and text together are what is embedded, weighed as keywords and read by the cross-encoder. What is stored,
returned and counted as text stays the client's own.
"""

from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, Final, Protocol

from memory.exceptions import InvalidDocument
from memory.sealing.codecs import Context, has_control_characters

# The form of the header, as recipes record it. Raised when the same context would make another header.
NO_HEADER: Final = 0
HEADER: Final = 1

# Of a title and of an author: most of what an embedding model reads is left to the text.
MOST_CHARACTERS: Final = 96

# In English, as questions name them; strftime would follow the locale of the process.
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

NO_CONTEXT: Final = Context()


class InContext(Protocol):
    """A chunk with its context. `occurred_at` is aware, and its header has the date of its own zone."""

    @property
    def text(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def author(self) -> str: ...
    @property
    def occurred_at(self) -> datetime | None: ...


def header(title: str, author: str, occurred_at: datetime | None) -> str:
    """`5 June 2022 · Team meeting · Alice:`, without what is not there; empty when nothing is."""
    date = (occurred_at.year, occurred_at.month, occurred_at.day) if occurred_at else None
    return _header(title, author, date)


def header_of(chunk: InContext, form: int = HEADER) -> str:
    """The header of a chunk, in the form that a recipe has; empty without any."""
    return header(chunk.title, chunk.author, chunk.occurred_at) if form else ""


def embedded_text(chunk: InContext, form: int = HEADER) -> str:
    """What is embedded and keyword-indexed of a chunk, and read by the cross-encoder: its header and its text.

    `form`: that of the header, as a recipe has it.
    """
    line = header_of(chunk, form)
    return f"{line} {chunk.text}" if line else chunk.text


def context_of(chunk: InContext) -> Context:
    """What is sealed of a chunk's context; NO_CONTEXT where there is nothing to seal."""
    offset = chunk.occurred_at.utcoffset() if chunk.occurred_at else None
    return Context(chunk.title, chunk.author, int(offset.total_seconds()) if offset else 0)


def local_time(occurred_at: datetime | None, context: Context | None) -> datetime | None:
    """A stored time, which the database gives in UTC, in the zone in which the client gave it."""
    if occurred_at is None or context is None or not context.utc_offset:
        return occurred_at
    return occurred_at.astimezone(timezone(timedelta(seconds=context.utc_offset)))


def refuse_invalid_name(value: Any, field: str) -> None:
    """Raise InvalidDocument naming `field` for a title or an author that is no line of text."""
    if not isinstance(value, str) or has_control_characters(value):
        raise InvalidDocument(field, "This must be a string without control characters.")


def refuse_invalid_time(value: Any, field: str) -> None:
    """Raise InvalidDocument naming `field` for what is neither None nor a time that can be stored."""
    if value is not None and not is_storable_time(value):
        raise InvalidDocument(field, "This must be a time with a zone, in UTC within the years 1 to 9999.")


def is_storable_time(time: Any) -> bool:
    """Whether it is an aware datetime whose moment has a year from 1 to 9999 in UTC too."""
    if not isinstance(time, datetime) or time.utcoffset() is None:
        return False
    try:
        time.astimezone(UTC)
    except OverflowError:
        return False
    return True


# By the date, for times of one moment are equal whatever their zones and dates. Many chunks have the same header.
@lru_cache(maxsize=1_024)
def _header(title: str, author: str, date: tuple[int, int, int] | None) -> str:
    day = f"{date[2]} {_MONTHS[date[1] - 1]} {date[0]}" if date else ""
    line = " · ".join(part for part in (day, _shortened(title), _shortened(author)) if part)
    return f"{line}:" if line else ""


def _shortened(name: str) -> str:
    """In one line; a longer one is cut, where a word ends if one does."""
    line = " ".join(name.split())
    if len(line) <= MOST_CHARACTERS:
        return line
    cut = line[:MOST_CHARACTERS]
    return f"{cut.rpartition(' ')[0] or cut}…"
