"""Reading what is stored."""

from typing import Any
from uuid import uuid4

import pytest

from memory import metrics
from memory.erasure import delete_matching
from memory.exceptions import ChunkNotFound, IntegrityFailure, InvalidFilter
from memory.listing import Sort, count_chunks, get_chunk, list_chunks
from memory.models import MemoryChunk, Tenant
from memory.rls import tenant_transaction
from memory.sealing.codecs import SealedBytes
from memory.search.conditions import parse_filter
from tests.factories import ALICE, BOB, remember

pytestmark = pytest.mark.django_db


def test_one_chunk_opened() -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello", metadata={"k": 1})
    chunk = get_chunk(user_id=ALICE, chunk_id=chunk_id)
    assert (chunk.text, chunk.metadata, chunk.doc_id, chunk.chunk_index) == ("hello", {"k": 1}, "doc", 0)
    assert "hello" not in repr(chunk)


def test_a_missing_chunk_and_another_users_are_told_the_same() -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello")
    said = set()
    for missing in (chunk_id, uuid4()):
        with pytest.raises(ChunkNotFound) as caught:
            get_chunk(user_id=BOB, chunk_id=missing)
        said.add(str(caught.value))
    assert len(said) == 1


def test_pages_cover_everything_once_newest_first() -> None:
    for number in range(7):
        remember(ALICE, f"doc {number}", f"text {number}")
    remember(BOB, "doc", "not Alice's")
    seen, after = [], None
    while True:
        page = list_chunks(user_id=ALICE, limit=3, after=after)
        seen += [chunk.text for chunk in page.chunks]
        if (after := page.next_after) is None:
            break
    assert seen == [f"text {number}" for number in reversed(range(7))]


def test_a_page_holds_no_more_bytes_than_the_budget_and_at_least_one_row(settings: Any) -> None:
    settings.MEMORY_MAX_ANSWER_BYTES = 2_500
    sizes = [1_000, 1_000, 400, 5_000, 1_000, 10]
    remember(ALICE, "doc", *(str(number) + "x" * size for number, size in enumerate(sizes)))
    pages, after = [], None
    while not pages or after is not None:
        page = list_chunks(user_id=ALICE, limit=9, after=after)
        pages.append([chunk.chunk_index for chunk in page.chunks])
        after = page.next_after
    assert pages == [[5, 4], [3], [2, 1], [0]]


def test_rows_beyond_the_budget_are_not_opened(settings: Any) -> None:
    settings.MEMORY_MAX_ANSWER_BYTES = 2_500
    remember(ALICE, "doc", *("x" * 1_000 for _ in range(9)))
    before = metrics.OPENS._value.get()
    assert len(list_chunks(user_id=ALICE, limit=9).chunks) == 2
    assert metrics.OPENS._value.get() - before == 2 * 3  # text, metadata and context


def test_filters() -> None:
    remember(ALICE, "a", "one", source="chat")
    remember(ALICE, "b", "two", source="mail")
    assert [chunk.text for chunk in list_chunks(user_id=ALICE, limit=9, source="mail").chunks] == ["two"]
    assert [chunk.text for chunk in list_chunks(user_id=ALICE, limit=9, doc_id="a").chunks] == ["one"]


@pytest.mark.parametrize("sort", Sort)
def test_a_filter_narrows_every_page_in_every_order(sort: Sort, settings: Any) -> None:
    settings.MEMORY_FILTERABLE_METADATA = ["kind"]
    for number in range(9):
        remember(ALICE, f"doc {number}", f"text {number}", metadata={"kind": "note" if number % 3 else "plan"})
    remember(BOB, "doc", "not Alice's", metadata={"kind": "note"})
    narrow = parse_filter({"metadata.kind": "note"})
    assert count_chunks(user_id=ALICE, filter=narrow) == 6 and count_chunks(user_id=ALICE) == 9
    seen, after = [], None
    while True:
        page = list_chunks(user_id=ALICE, limit=4, filter=narrow, sort=sort, after=after)
        seen += [chunk.text for chunk in page.chunks]
        if (after := page.next_after) is None:
            break
    order = range(9) if sort is Sort.OCCURRED else reversed(range(9))
    assert seen == [f"text {number}" for number in order if number % 3]
    skipped = list_chunks(user_id=ALICE, limit=4, filter=narrow, sort=sort, skip=4)
    assert [chunk.text for chunk in skipped.chunks] == seen[4:] and skipped.next_after is None


def test_a_filter_of_what_older_rows_do_not_tell_is_refused(settings: Any) -> None:
    settings.MEMORY_FILTERABLE_METADATA = []
    remember(ALICE, "doc", "text", metadata={"kind": "note"})
    settings.MEMORY_FILTERABLE_METADATA = ["kind"]
    narrow = parse_filter({"metadata.kind": "note"})
    for call in (count_chunks, delete_matching, lambda **given: list_chunks(limit=1, **given)):
        with pytest.raises(InvalidFilter, match="reindex"):
            call(user_id=ALICE, filter=narrow)
    assert count_chunks(user_id=BOB, filter=narrow) == delete_matching(user_id=BOB, filter=narrow) == 0


def test_what_a_filter_matches_is_deleted_and_counted_off(settings: Any) -> None:
    settings.MEMORY_FILTERABLE_METADATA = ["kind"]
    for user_id in (ALICE, BOB):
        remember(user_id, "a", "one", "two", metadata={"kind": "note"})
        remember(user_id, "b", "three", metadata={"kind": "plan"})
    assert delete_matching(user_id=ALICE, filter=parse_filter({"metadata.kind": "note"})) == 2
    assert [chunk.text for chunk in list_chunks(user_id=ALICE, limit=9).chunks] == ["three"]
    assert len(list_chunks(user_id=BOB, limit=9).chunks) == 3
    with tenant_transaction(ALICE):
        assert Tenant.objects.get().chunk_count == 1


@pytest.mark.parametrize("seal_of_another_column", [False, True])
def test_a_tampered_row_raises_alone_and_is_counted_on_a_page(seal_of_another_column: bool) -> None:
    good, bad = remember(ALICE, "doc", "good", "bad")
    with tenant_transaction(ALICE):
        embedding = MemoryChunk.objects.get(id=bad).emb_cipher
        tampered = embedding if seal_of_another_column else SealedBytes(b"x" * 40)
        MemoryChunk.objects.filter(id=bad).update(text_cipher=tampered)
    with pytest.raises(IntegrityFailure):
        get_chunk(user_id=ALICE, chunk_id=bad)
    page = list_chunks(user_id=ALICE, limit=9)
    assert ([chunk.id for chunk in page.chunks], page.integrity_failures) == ([good], 1)
