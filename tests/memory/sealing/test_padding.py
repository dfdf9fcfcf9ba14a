"""MEMORY_SEAL_PADDING: sizes tell less, nothing else changes, and what was sealed without it opens."""

from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from django.conf import settings as configured
from hypothesis import given
from hypothesis import strategies as st

from memory.documents.document import Chunk, Document
from memory.indexing import index_documents
from memory.listing import list_chunks
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.sealing.codecs import FILLING, Context, ContextCodec, JSONCodec, TextCodec, filled, unfilled
from memory.security import OVERHEAD
from tests.memory.verbs.changes import change

SEALED = ("text_cipher", "meta_cipher", "context_cipher")


@given(st.text(st.characters(codec="utf-8"), max_size=200), st.integers(0, 300))
def test_filling_is_taken_away_whatever_the_text(text: str, size: int) -> None:
    before, configured.MEMORY_SEAL_PADDING = configured.MEMORY_SEAL_PADDING, size
    try:
        data = TextCodec().encode(text)
        assert not size or len(data) % size == 0
        assert len(data) - len(text.encode()) < max(1, size)
        assert TextCodec().decode(data) == text
    finally:
        configured.MEMORY_SEAL_PADDING = before


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (TextCodec(), "ÿ\x00 – text"),
        (JSONCodec(), {"a": [1, "ÿ"], "b": None}),
        (ContextCodec(), Context("Title", "Author", 3_600)),
    ],
)
def test_every_kind_opens_with_and_without_it(settings: Any, codec: Any, value: Any) -> None:
    bare = codec.encode(value)
    settings.MEMORY_SEAL_PADDING = 64
    full = codec.encode(value)
    assert (len(full), full[: len(bare)]) == (64, bare)
    assert codec.decode(bare) == codec.decode(full) == value
    settings.MEMORY_SEAL_PADDING = 0
    assert codec.decode(full) == value


def test_what_ends_on_a_multiple_is_not_filled_and_nothing_stays_nothing(settings: Any) -> None:
    settings.MEMORY_SEAL_PADDING = 4
    assert filled(b"abcd") == b"abcd"
    assert filled(b"") == unfilled(b"") == b""
    assert unfilled(b"ab" + FILLING * 2) == b"ab"


@pytest.mark.parametrize("data", [b"a\xffb", b"\xfe\xff", b"ab\xc3\xff"])
def test_other_bytes_that_no_text_has_are_still_refused(data: bytes) -> None:
    for codec in (TextCodec(), JSONCodec(), ContextCodec()):
        with pytest.raises(InvalidTag):
            codec.decode(data)


def sizes(user_id: str) -> list[int]:
    with tenant_transaction(user_id):
        rows = MemoryChunk.objects.values_list(*SEALED)
        return [len(seal) - OVERHEAD for row in rows for seal in row if seal is not None]


@pytest.mark.django_db
def test_stored_and_changed_memories_are_filled_and_read_as_before(settings: Any) -> None:
    chunks = (Chunk("The cat sleeps."), Chunk("A much longer text about the dog. " * 5))
    (before,) = index_documents(user_id="person:1", documents=[Document("old", "", chunks[:1])])
    settings.MEMORY_SEAL_PADDING = 128
    index_documents(user_id="person:2", documents=[Document("new", "notes", chunks, {"mood": "calm"}, title="Animals")])
    assert set(sizes("person:2")) == {128, 256}
    found = list_chunks(user_id="person:2", limit=10).chunks
    assert {chunk.text for chunk in found} == {chunk.text for chunk in chunks}
    assert {(chunk.title, chunk.metadata["mood"]) for chunk in found} == {("Animals", "calm")}
    assert max(sizes("person:1")) < 128  # what was there stays as it is, and is read
    (old,) = list_chunks(user_id="person:1", limit=10).chunks
    assert old.text == chunks[0].text
    change(before.chunk_ids[0], user_id="person:1", text="The cat wakes.")
    assert set(sizes("person:1")) == {128}
