"""The conversational collection, from a handful of sentence pairs."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from memory.benchmarks.beir import Collection, read_collection
from memory.benchmarks.conversations import PAIRS, SESSIONS, STRETCH, build_conversations, read_facts

FACTS = 2 * STRETCH * SESSIONS + 5  # one conversation, and the beginning of a second


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Every third sentence has a second question; one pair is of another split."""
    pairs = [{"query": "of dev?", "passage": "of dev", "split": "dev"}]
    for number in range(FACTS):
        for question in range(2 if number % 3 == 0 else 1):
            pairs.append({"query": f"q{number}.{question}?", "passage": f"sentence {number}", "split": "test"})
    path = tmp_path / "data" / PAIRS
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return tmp_path / "data"


@pytest.fixture
def collection(data: Path, tmp_path: Path) -> Collection:
    assert build_conversations(data, tmp_path / "talks")["conversations"] == 2
    return read_collection(tmp_path / "talks")


def test_facts_keep_their_order_and_their_questions(data: Path) -> None:
    facts = list(read_facts(data / PAIRS))
    assert [fact.sentence for fact in facts] == [f"sentence {number}" for number in range(FACTS)]
    assert facts[0].questions == ("q0.0?", "q0.1?")
    assert facts[1].questions == ("q1.0?",)


def test_each_question_is_answered_by_the_one_turn_that_is_judged(collection: Collection) -> None:
    turns = {
        f"{document.doc_id}/{place}": chunk.text
        for document in collection.documents
        for place, chunk in enumerate(document.chunks)
    }
    assert len(collection.queries) == FACTS
    for query in collection.queries:
        (answer,) = query.judged
        number = query.text.removeprefix("q").partition(".")[0]
        assert turns[answer] == f"sentence {number}"
        assert query.type in ("asked", "told")


def test_a_question_that_was_spoken_is_never_asked_of_the_collection(collection: Collection) -> None:
    spoken = {chunk.text for document in collection.documents for chunk in document.chunks}
    asked = [query for query in collection.queries if query.type == "asked"]
    assert asked
    assert all(query.text not in spoken for query in collection.queries)
    assert all(query.text.endswith(".1?") and query.text.replace(".1?", ".0?") in spoken for query in asked)


def test_sessions_follow_each_other_and_two_people_speak(collection: Collection) -> None:
    first = [document for document in collection.documents if document.doc_id.startswith("c00:")]
    assert [document.doc_id for document in first] == [f"c00:s{number:02}" for number in range(SESSIONS)]
    times = [document.occurred_at for document in first if document.occurred_at]
    assert len(times) == SESSIONS
    assert times == sorted(times)
    assert len({chunk.author for document in first for chunk in document.chunks}) == 2


def test_the_same_seed_gives_the_same_collection(data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_conversations(data, tmp_path / name, seed=seed)
    first, second, other = ((tmp_path / name / "corpus.jsonl").read_text() for name in "abc")
    assert first == second != other


def test_the_command_says_what_it_wrote_and_what_to_do_next(data: Path, tmp_path: Path) -> None:
    out = StringIO()
    call_command("build_conversations", "--data", str(data), "--out", str(tmp_path / "talks"), stdout=out)
    assert f"{FACTS:,} questions" in out.getvalue()
    assert "--unit chunk --per-tenant-prefix" in out.getvalue()


def test_missing_data_is_a_command_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        call_command("build_conversations", "--data", str(tmp_path), "--out", str(tmp_path / "talks"))
