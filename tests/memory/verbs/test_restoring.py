"""An export taken back: nothing of it is lost, whatever of it is there already."""

import io
import json
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from memory.documents.document import Chunk, Document
from memory.erasure import delete_chunk, erase_user
from memory.importing import BROKE_OFF, ID_TAKEN, ImportReport, import_lines
from memory.indexing import index_documents
from memory.rotation.integrity import inspect_all
from memory.verbs import exporting
from memory.verbs.exporting import Export
from tests.factories import ALICE, BOB, recall, remember, texts, vector_of
from tests.memory.rotation.hmac_rotating import facts
from tests.memory.verbs.changes import change, document_of

pytestmark = pytest.mark.django_db(transaction=True)
BERLIN = timezone(timedelta(hours=2))


def lines_of(user_id: str = ALICE, *, embeddings: bool = True) -> list[bytes]:
    """The lines by document; an export has them in the order of the stored names, which are labels."""
    with closing(Export(user_id=user_id, embeddings=embeddings)) as lines:
        first, *parts, last = lines
    return [first, *sorted(parts, key=lambda line: str(json.loads(line)["doc_id"])), last]


def taken_back(lines: Iterable[bytes], user_id: str = BOB, **options: Any) -> ImportReport:
    return import_lines(user_id=user_id, lines=lines, batch_size=3, **options)


def store_some() -> None:
    """Documents with everything that can be stored, changed and with a gap."""
    spoken = tuple(
        Chunk(text, vector_of(text), author=author, occurred_at=datetime(2022, 6, day, 9, tzinfo=BERLIN))
        for day, (author, text) in enumerate([("Alice", "the projector"), ("Bob", "I have it"), ("", "noted")], start=1)
    )
    far = datetime(9999, 1, 1, tzinfo=UTC)
    talk = Document("talk", "chat", spoken, {"k": [1, None]}, title="Team · 2", occurred_at=far, expires_at=far)
    index_documents(user_id=ALICE, documents=[talk])
    ids = remember(ALICE, "long", *(f"part {number}" for number in range(7)), metadata={"deep": {"a": {"b": None}}})
    remember(ALICE, "e", "é\n\u2028 \x7f")
    change(ids[2], metadata={"own": True})
    delete_chunk(user_id=ALICE, chunk_id=ids[0])
    delete_chunk(user_id=ALICE, chunk_id=ids[4])


@pytest.fixture(autouse=True)
def _embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts that the import has embedded."""
    embedded: list[str] = []

    def embed(given: list[str]) -> np.ndarray:
        embedded.extend(given)
        return np.stack([vector_of(text) for text in given]) if given else np.empty((0, 384), dtype=np.float32)

    monkeypatch.setattr("memory.verbs.restoring.embed_passages", embed)
    monkeypatch.setattr(exporting, "MOST_CHUNKS", 2)
    return embedded


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_nothing_is_lost(batch: int, _embedded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "ROWS_PER_BATCH", batch)
    store_some()
    lines = lines_of()
    report = taken_back(lines)
    assert (report.documents, report.chunks, report.skipped, report.bad) == (3, 9, 0, [])
    assert facts(BOB) == facts(ALICE)
    assert lines_of(BOB) == lines
    assert _embedded == []
    assert inspect_all().findings == []
    assert texts(recall(BOB, "noted"))[0] == "noted"


def test_what_comes_without_embeddings_is_embedded_with_its_header(_embedded: list[str]) -> None:
    store_some()
    lines = lines_of(embeddings=False)
    taken_back(lines)
    assert lines_of(BOB, embeddings=False) == lines
    assert "2 June 2022 · Team · 2 · Bob: I have it" in _embedded
    assert inspect_all().findings == []


@pytest.mark.parametrize("made_by", [{"model": "another"}, {"header": 0}, {"model": ""}])
def test_embeddings_that_were_made_otherwise_are_made_anew(made_by: dict[str, Any], _embedded: list[str]) -> None:
    remember(ALICE, "doc", "hello")
    first, line, last = map(json.loads, lines_of())
    first["export"] |= made_by
    line["stored"][0]["embedding"] = [1.0, 2.0]  # of another length even
    assert taken_back(json.dumps(value).encode() for value in (first, line, last)).bad == []
    assert (_embedded, texts(recall(BOB, "hello"))) == (["hello"], ["hello"])


@pytest.mark.parametrize("done", range(1, 8))
def test_an_import_that_was_stopped_is_run_again(done: int) -> None:
    """After so many lines, which end within the long document too."""
    store_some()
    lines = lines_of()
    assert len(lines) == 8
    part = taken_back(lines[:done])
    assert part.bad == [(done + 1, BROKE_OFF)]
    whole = taken_back(lines)
    assert (whole.bad, part.chunks + whole.chunks) == ([], 9)
    assert lines_of(BOB) == lines


def test_a_tenant_that_has_half_of_it_keeps_its_own_half() -> None:
    store_some()
    lines = lines_of()
    remember(BOB, "long", "Bob's own")
    report = taken_back(lines)
    assert (report.documents, report.skipped, report.bad) == (2, 3, [])
    assert sorted(texts(recall(BOB, "Bob's own", doc_id="long"))) == ["Bob's own"]
    assert taken_back(lines).chunks == 0


def test_a_document_that_was_changed_since_is_not_mixed_with_its_old_version() -> None:
    ids = remember(ALICE, "long", *(f"part {number}" for number in range(5)))
    lines = lines_of()
    delete_chunk(user_id=ALICE, chunk_id=ids[4])
    assert taken_back(lines, ALICE).skipped == 2 and len(document_of("long")) == 5  # its end is missing, and comes back
    for chunk_id in ids[1:]:
        delete_chunk(user_id=ALICE, chunk_id=chunk_id)
    assert (taken_back(lines, ALICE).chunks, len(document_of("long"))) == (0, 1)


def test_replace_brings_back_what_was_exported() -> None:
    store_some()
    lines = lines_of()
    before = facts(ALICE)
    remember(ALICE, "long", "another", "version")
    remember(ALICE, "new", "stays")
    assert taken_back(lines, ALICE, replace=True).bad == []
    assert [fact for fact in facts(ALICE) if fact[1] != "new"] == before
    assert inspect_all().findings == []


def test_an_erased_user_is_restored_as_a_whole() -> None:
    store_some()
    lines, before = lines_of(), facts(ALICE)
    erase_user(user_id=ALICE)
    taken_back(lines, ALICE)
    assert facts(ALICE) == before


def test_ids_of_other_memories_are_not_taken_over() -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello")
    line = json.dumps({**json.loads(lines_of()[1]), "doc_id": "other"}).encode()
    assert taken_back([line], ALICE).bad == [(1, ID_TAKEN)]
    assert [chunk.id for chunk in document_of("doc")] == [chunk_id]
    twice = [line, json.dumps({**json.loads(line), "doc_id": "another"}).encode()]
    assert taken_back(twice).bad == [(2, ID_TAKEN)]


STORED = {"id": "0198c1dd-4ae5-7a3b-9bb0-7a20e0b0a3c1", "chunk_index": 0, "text": "PLANTED"}
TIMES = {"created_at": "2026-01-01T00:00:00+00:00", "updated_at": "2026-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"export": {"version": 2}}, "export:"),
        ({"export": []}, "export:"),
        ({"doc_id": "d", "stored": []}, "stored:"),
        ({"doc_id": "d", "stored": "PLANTED"}, "stored:"),
        ({"doc_id": "d", "stored": ["PLANTED"]}, "stored[0]"),
        ({"stored": [STORED | TIMES]}, "doc_id:"),
        ({"doc_id": "d", "stored": [STORED]}, "stored[0].created_at:"),
        ({"doc_id": "d", "stored": [STORED | TIMES | {"created_at": "2026-01-01T00:00:00"}]}, "stored[0].created_at:"),
        ({"doc_id": "d", "stored": [STORED | TIMES | {"id": "x"}]}, "stored[0].id:"),
        ({"doc_id": "d", "stored": [STORED | TIMES | {"embedding": [1]}]}, "stored[0].embedding:"),
        ({"doc_id": "d", "stored": [STORED | TIMES | {"unknown": 1}]}, "stored[0].unknown:"),
        ({"doc_id": "d", "stored": [STORED | TIMES] * 2}, "stored:"),
        ({"doc_id": "d", "after": 5, "stored": [STORED | TIMES]}, "after:"),
    ],
)
def test_a_line_that_is_none_is_named(value: Any, reason: str) -> None:
    ((number, said),) = taken_back([json.dumps(value).encode()]).bad
    assert number == 1 and said.startswith(reason) and "PLANTED" not in said


def test_the_command_says_that_an_export_broke_off(tmp_path: Path) -> None:
    store_some()
    path = tmp_path / "memories.ndjson"
    path.write_bytes(b"".join(lines_of()))
    out = io.StringIO()
    call_command("import_memories", str(path), "--user", BOB, stdout=out)
    assert "Stored 3 documents in 9 chunks" in out.getvalue()
    path.write_bytes(b"".join(lines_of()[:-1]))
    with pytest.raises(Exception, match="1 bad lines"):
        call_command("import_memories", str(path), "--user", BOB, stdout=out, stderr=out)
    assert BROKE_OFF in out.getvalue()


# --- Anything at all -------------------------------------------------------------------------------------------------
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.none() | st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=zones)
numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner),
)
chunks = st.builds(
    lambda text, author, occurred_at: Chunk(text, vector_of(text), author=author, occurred_at=occurred_at),
    words.filter(str.strip),
    names,
    times,
)
documents = st.lists(
    st.builds(
        Document,
        doc_id=names.filter(str.strip),
        source=names,
        chunks=st.lists(chunks, min_size=1, max_size=5).map(tuple),
        metadata=st.dictionaries(words, values, max_size=3),
        title=names,
        occurred_at=times,
        expires_at=st.none() | st.datetimes(datetime(2500, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC)),
    ),
    max_size=4,
    unique_by=lambda document: document.doc_id,
)


BLANK = Document(doc_id="d", source=" ", chunks=(Chunk("a", vector_of("a"), author=" "),), metadata={}, title="\u3000")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(made=[BLANK], batch=1)
@given(made=documents, batch=st.integers(1, 4))
def test_whatever_is_stored_comes_back(made: list[Document], batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for user_id in (ALICE, BOB):
        erase_user(user_id=user_id)
    if made:
        index_documents(user_id=ALICE, documents=made)
    with monkeypatch.context() as patched:
        patched.setattr(exporting, "ROWS_PER_BATCH", batch)
        lines = lines_of()
    assert taken_back(lines).bad == []
    assert facts(BOB) == facts(ALICE)
    assert lines_of(BOB) == lines
