"""Imports: streamed, resumable, nothing half-written, and bad lines named by number without their content."""

import io
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from memory import importing
from memory.documents.lines import BadLine, parse_line
from memory.importing import import_lines
from memory.listing import list_chunks
from tests.factories import ALICE, vector_of

pytestmark = pytest.mark.django_db(transaction=True)


def line(doc_id: str, text: str = "some text", **fields: Any) -> bytes:
    return (
        json.dumps({"doc_id": doc_id, "text": text, "embedding": vector_of(text).tolist(), **fields}).encode() + b"\n"
    )


def stored() -> list[tuple[str, str]]:
    chunks = list_chunks(user_id=ALICE, limit=100).chunks
    return sorted((chunk.doc_id, chunk.text) for chunk in chunks)


def run(*lines: bytes, **options: Any) -> Any:
    return import_lines(user_id=ALICE, lines=lines, **{"batch_size": 2, **options})


def test_lines_become_documents() -> None:
    report = run(line("a", "one"), b"\n", line("b", "two", source="mail", metadata={"k": 1}), line("c", "three"))
    assert (report.documents, report.chunks, report.skipped, report.bad) == (3, 3, 0, [])
    assert stored() == [("a", "one"), ("b", "two"), ("c", "three")]


def test_a_conversation_gives_its_turns() -> None:
    turns = [{"text": text, "embedding": vector_of(text).tolist()} for text in ("hello", "hi")]
    run(json.dumps({"doc_id": "talk", "chunks": turns}).encode())
    assert stored() == [("talk", "hello"), ("talk", "hi")]


def test_a_beir_corpus_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.indexing.embed_passages", lambda texts: [vector_of(text) for text in texts])
    run(b'{"_id": "7", "title": "On cats", "text": "They purr.", "metadata": {}}')
    assert stored() == [("7", "They purr.")]
    assert [chunk.title for chunk in list_chunks(user_id=ALICE, limit=9).chunks] == ["On cats"]


def test_a_title_that_is_none_of_ours_goes_into_the_text() -> None:
    def parsed(title: object, text: str) -> tuple[str, str]:
        document = parse_line(json.dumps({"_id": "7", "title": title, "text": text}).encode())
        return document.title, document.chunks[0].text

    assert parsed("On\n cats", "They purr.") == ("On cats", "They purr.")
    assert parsed("On cats", " ") == ("", "On cats")
    assert parsed("c" * 513, "They purr.") == ("", "c" * 513 + " They purr.")
    assert parsed(None, "They purr.") == ("", "They purr.")
    with pytest.raises(BadLine, match="title"):
        parsed(["On cats"], "They purr.")


BAD = {
    b"{": "not JSON",
    b"[1]": "no JSON object",
    b'{"text": "PLANTED"}': "doc_id: is missing",
    b'{"doc_id": "x", "text": 5}': "text:",
    b'{"doc_id": "x", "text": "  "}': "text:",
    b'{"doc_id": "x", "text": "PLANTED", "txt": 1}': "txt:",
    b'{"doc_id": "x", "text": "PLANTED", "embedding": [1]}': "embedding:",
    b'{"doc_id": "x", "chunks": [{"text": "PLANTED", "embedding": [NaN]}]}': "chunks[0].embedding:",
    b'{"doc_id": "x", "text": "PLANTED\\u0000"}': "text:",
    b'{"doc_id": "x", "text": "PLANTED\\ud800"}': "text:",
    b'{"doc_id": "x", "doc_id": "y", "text": "PLANTED"}': "same name twice",
    b'\xff{"doc_id": "x"}': "not UTF-8",
}


def test_a_line_of_too_many_chunks_is_a_bad_line(settings: Any) -> None:
    settings.MEMORY_MAX_CHUNKS = 3
    report = run(json.dumps({"doc_id": "x", "text": "-" * 5_000}).encode(), line("b", "two"))
    assert report.bad == [(1, "text: With this, there are more than 3 chunks.")]
    assert stored() == [("b", "two")]


@pytest.mark.parametrize(("bad", "reason"), BAD.items())
def test_a_bad_line_is_named_and_its_neighbours_are_stored(bad: bytes, reason: str) -> None:
    report = run(line("a", "one"), bad + b"\n", line("b", "two"))
    ((number, said),) = report.bad
    assert number == 2 and reason in said and "PLANTED" not in said
    assert stored() == [("a", "one"), ("b", "two")]


def test_a_second_run_stores_only_what_is_missing() -> None:
    run(line("a", "one"), line("b", "two"))
    report = run(line("a", "changed"), line("b", "two"), line("c", "three"))
    assert (report.documents, report.skipped) == (1, 2)
    assert stored() == [("a", "one"), ("b", "two"), ("c", "three")]


def test_replace_stores_anew() -> None:
    run(line("a", "one"))
    assert run(line("a", "changed"), replace=True).documents == 1
    assert stored() == [("a", "changed")]


@pytest.mark.parametrize(("replace", "kept"), [(False, "first"), (True, "second")])
def test_a_doc_id_twice_in_one_file(replace: bool, kept: str) -> None:
    run(line("a", "first"), line("a", "second"), batch_size=10, replace=replace)
    assert stored() == [("a", kept)]


def test_a_run_that_breaks_off_keeps_whole_batches_and_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line(str(number), f"text {number}") for number in range(7)]
    real = importing.index_documents

    def fails_at_the_third_batch(documents: Any, **kwargs: Any) -> Any:
        if documents[0].doc_id == "4":
            raise ConnectionError("gone")
        return real(documents=documents, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr(importing, "index_documents", fails_at_the_third_batch)
        run(*lines)
    # The batch that was under way beside it is stored as a whole too.
    assert [doc_id for doc_id, _ in stored()] == ["0", "1", "2", "3", "6"]
    report = run(*lines)
    assert (report.skipped, report.documents, len(stored())) == (5, 2, 7)


@pytest.mark.parametrize(("replace", "kept"), [(False, "first"), (True, "second")])
def test_a_doc_id_in_two_batches_that_would_be_under_way_at_once(
    replace: bool, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is held up until the second would have overtaken it."""
    real, second_began = importing.index_documents, threading.Event()

    def holds_the_first_up(documents: Any, **kwargs: Any) -> Any:
        if documents[0].chunks[0].text == "first":
            second_began.wait(0.5)
        else:
            second_began.set()
        return real(documents=documents, **kwargs)

    monkeypatch.setattr(importing, "index_documents", holds_the_first_up)
    run(line("a", "first"), line("a", "second"), batch_size=1, replace=replace)
    assert stored() == [("a", kept)]


class TestCommand:
    def test_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "memories.jsonl"
        path.write_bytes(line("a", "one") + line("b", "two"))
        out = io.StringIO()
        call_command("import_memories", str(path), "--user", ALICE, stdout=out)
        assert "Stored 2 documents in 2 chunks" in out.getvalue() and "documents/s" in out.getvalue()

    def test_a_pipe(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(line("a", "one"))))
        call_command("import_memories", "-", "--user", ALICE, stdout=io.StringIO())
        assert stored() == [("a", "one")]

    def test_bad_lines_are_listed_and_the_exit_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "memories.jsonl"
        path.write_bytes(b"PLANTED\n" + line("a", "one") + b"PLANTED\n" * 30)
        err = io.StringIO()
        with pytest.raises(CommandError, match="31 bad lines"):
            call_command("import_memories", str(path), "--user", ALICE, stdout=io.StringIO(), stderr=err)
        assert "line 1: " in err.getvalue() and "and lines 22, 23" in err.getvalue()
        assert "PLANTED" not in err.getvalue()
        assert stored() == [("a", "one")]

    @pytest.mark.parametrize("arguments", [["nowhere.jsonl", "--user", ALICE], ["-", "--user", ""]])
    def test_what_cannot_be_opened(self, arguments: list[str]) -> None:
        with pytest.raises(CommandError, match="No such file|--user"):
            call_command("import_memories", *arguments)
