"""The header that is made of a chunk's context, in the scripts that people write in."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from memory.exceptions import InvalidDocument
from memory.index.chunking import _encode, split_text
from memory.index.context import (
    MOST_CHARACTERS,
    NO_HEADER,
    context_of,
    embedded_text,
    header,
    is_storable_time,
    local_time,
    refuse_invalid_name,
    refuse_invalid_time,
)
from memory.index.rows import PlainChunk
from memory.sealing.codecs import Context, ContextCodec

JUNE = datetime(2022, 6, 5, 18, 30, tzinfo=UTC)
TOKYO = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    ("title", "author", "occurred_at", "line"),
    [
        ("Team meeting", "Alice", JUNE, "5 June 2022 · Team meeting · Alice:"),
        ("Team meeting", "", None, "Team meeting:"),
        ("", "Alice", None, "Alice:"),
        ("", "", JUNE, "5 June 2022:"),
        ("", "Alice", JUNE, "5 June 2022 · Alice:"),
        ("", "", None, ""),
        ("  \u3000 ", " ", None, ""),
        ("团队会议", "王小明", JUNE, "5 June 2022 · 团队会议 · 王小明:"),
        ("اجتماع الفريق", "ليلى", JUNE, "5 June 2022 · اجتماع الفريق · ليلى:"),
        ("टीम की बैठक", "आरव", JUNE, "5 June 2022 · टीम की बैठक · आरव:"),
        ("Совещание команды", "Алиса", None, "Совещание команды · Алиса:"),
        ("チーム会議", "花子", datetime(2022, 6, 6, 3, 30, tzinfo=TOKYO), "6 June 2022 · チーム会議 · 花子:"),
        ("ประชุมทีม", "มานี", None, "ประชุมทีม · มานี:"),
        ("Ομάδα", "Ελένη", datetime(33, 4, 3, tzinfo=UTC), "3 April 33 · Ομάδα · Ελένη:"),
        ("a\n b\t c", "Zoë 👩🏽‍🚀", None, "a b c · Zoë 👩🏽‍🚀:"),
    ],
)
def test_header(title: str, author: str, occurred_at: datetime | None, line: str) -> None:
    assert header(title, author, occurred_at) == line


def test_one_moment_has_the_date_of_each_zone() -> None:
    moment = datetime(2022, 6, 5, 23, tzinfo=UTC)
    assert header("", "", moment) == "5 June 2022:" and header("", "", moment.astimezone(TOKYO)) == "6 June 2022:"


@pytest.mark.parametrize("title", ["word " * 400, "字" * 2_000, "x" * 1_000_000])
def test_a_long_title_is_cut(title: str) -> None:
    line = header(title, "Alice", None)
    assert line.endswith("… · Alice:") and len(line) <= MOST_CHARACTERS + len("… · Alice:")
    assert not line.startswith("word ") or line.startswith("word word word") and "wor…" not in line


def chunk(**fields: Any) -> PlainChunk:
    return PlainChunk("doc", "", 0, "I adopted a cat.", {}, **fields)


def test_what_is_embedded() -> None:
    assert embedded_text(chunk(author="Alice", occurred_at=JUNE)) == "5 June 2022 · Alice: I adopted a cat."
    assert embedded_text(chunk()) == "I adopted a cat."
    assert embedded_text(chunk(author="Alice"), NO_HEADER) == "I adopted a cat."


def test_the_zone_of_a_time_survives_its_way_through_utc() -> None:
    codec, given = ContextCodec(), datetime(2022, 6, 6, 3, 30, tzinfo=TOKYO)
    context = codec.decode(codec.encode(context_of(chunk(title="会議", occurred_at=given))))
    assert context == Context("会議", "", 9 * 3600)
    back = local_time(given.astimezone(UTC), context)
    assert back == given and back is not None and back.utcoffset() == given.utcoffset()
    assert local_time(JUNE, None) == JUNE and local_time(None, context) is None


def test_bytes_of_another_column_are_no_context() -> None:
    for data in (
        b'{"kind": "note"}',
        b'{"title": 5}',
        b'{"utc_offset": 1e9}',
        b'{"utc_offset": "x"}',
        b"a text",
        b"[]",
    ):
        with pytest.raises(InvalidTag):
            ContextCodec().decode(data)
    with pytest.raises(TypeError):
        ContextCodec().encode({"title": "x"})


@pytest.mark.parametrize(
    ("time", "storable"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), True),
        (datetime(1, 1, 1, tzinfo=TOKYO), False),  # in UTC it is the last day of the year 0
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), True),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-1))), False),
        (datetime(1903, 12, 17, tzinfo=UTC), True),
        (datetime(2022, 6, 5), False),  # noqa: DTZ001
        ("2022-06-05T00:00:00Z", False),
    ],
)
def test_times_that_can_be_stored(time: Any, storable: bool) -> None:
    assert is_storable_time(time) == storable
    if not storable:
        with pytest.raises(InvalidDocument, match="occurred_at"):
            refuse_invalid_time(time, "occurred_at")


@pytest.mark.parametrize("name", [5, None, "a\nb", "a\0b"])
def test_names_that_cannot_be_stored(name: Any) -> None:
    with pytest.raises(InvalidDocument, match="title"):
        refuse_invalid_name(name, "title")


def test_chunks_leave_room_for_their_header() -> None:
    text, line = "The quick brown fox jumps over the lazy dog. " * 60, "5 June 2022 · Team meeting · Alice:"
    pieces = list(split_text(text, line))
    assert max(len(_encode(f"{line} {piece}")) for piece in pieces) <= 254
    assert " ".join(pieces) == text.strip() and len(pieces) >= len(list(split_text(text)))


def test_a_header_takes_half_of_a_chunk_at_most(settings: Any) -> None:
    settings.MEMORY_CHUNK_TOKENS = 32
    pieces = list(split_text("one two three four five six seven eight nine ten " * 20, "字" * 96))
    assert all(len(_encode(piece)) <= 16 for piece in pieces)
