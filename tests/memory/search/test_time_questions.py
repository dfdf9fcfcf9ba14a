"""The span that a question names, and what is lifted by it."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from memory.documents.document import Chunk, Document
from memory.indexing import index_documents
from memory.search.retrieval import query_memories
from memory.search.time_questions import span_of
from tests.factories import ALICE, API, person_client, vector, vector_of

ASKED = datetime(2023, 6, 14, 12, 30, tzinfo=UTC)  # a Wednesday


@pytest.mark.parametrize(
    ("question", "first", "days"),
    [
        ("What did I eat yesterday?", "2023-06-13", 1),
        ("the day before yesterday", "2023-06-12", 1),
        ("What is on today?", "2023-06-14", 1),
        ("Who called last week?", "2023-06-05", 7),
        ("and this week", "2023-06-12", 7),
        ("last month", "2023-05-01", 31),
        ("What happened last year?", "2022-01-01", 365),
        ("3 days ago", "2023-06-11", 1),
        ("two weeks ago", "2023-05-29", 7),
        ("five months ago", "2023-01-01", 31),
        ("six months ago", "2022-12-01", 31),
        ("a year ago", "2022-01-01", 365),
        ("the last 10 days", "2023-06-04", 11),
        ("last Monday", "2023-06-12", 1),
        ("on Wednesday", "2023-06-07", 1),
        ("last weekend", "2023-06-10", 2),
        ("In May 2023, where was I?", "2023-05-01", 31),
        ("in May", "2023-05-01", 31),
        ("in December", "2022-12-01", 31),
        ("during 2022", "2022-01-01", 365),
        ("on 5 June 2022", "2022-06-05", 1),
        ("on June 5th, 2022", "2022-06-05", 1),
        ("the 24th of December", "2022-12-24", 1),
        ("on 2022-02-28?", "2022-02-28", 1),
        ("in February 2024", "2024-02-01", 29),
    ],
)
def test_spans(question: str, first: str, days: int) -> None:
    start = datetime.fromisoformat(f"{first}T00:00:00+00:00")
    assert span_of(question, ASKED) == (start, start + timedelta(days=days))


@pytest.mark.parametrize(
    "question",
    [
        "May I come in?", "What may happen in summer?", "before May 2023", "since last week", "after 5 June 2022",
        "by Monday", "31 June 2023", "on 2022-02-30", "Who is August?", "the march of the penguins", "2022", "",
        "500 years of 2 solitude", "999 years ago, 999 years ago", "second to last",
    ],
)  # fmt: skip
def test_questions_without_a_span(question: str) -> None:
    assert span_of(question, datetime(900, 1, 1, tzinfo=UTC) if "999" in question else ASKED) is None


def test_the_zone_is_that_of_the_question() -> None:
    tokyo = timezone(timedelta(hours=9))
    span = span_of("today", datetime(2023, 6, 15, 1, tzinfo=tokyo))
    assert span and span[0] == datetime(2023, 6, 14, 15, tzinfo=UTC)


def test_long_questions_are_read_in_linear_time() -> None:
    for part in ("last ", "in may ", "5 ", "before ", "a"):
        assert span_of(part * (8192 // len(part)), ASKED) is None or part == "in may "


def ask(query: str, **options: Any) -> list[tuple[str, float]]:
    answer = query_memories(
        user_id=ALICE, query=query, embedding=vector_of("what"), top_k=9, explain=True, rerank=False, **options
    )
    return [(match.doc_id, match.explanation.time if match.explanation else 0) for match in answer.matches]


@pytest.mark.django_db
class TestLifting:
    @pytest.fixture(autouse=True)
    def _memories(self) -> None:
        near, nearer = vector_of("what") + 0.02 * vector_of("noise"), vector_of("what") + 0.01 * vector_of("noise")
        days = (("then", near, datetime(2023, 6, 7, tzinfo=UTC)), ("else", nearer, datetime(2021, 6, 7, tzinfo=UTC)))
        index_documents(
            user_id=ALICE,
            documents=[Document(name, "", (Chunk("so", each),), occurred_at=time) for name, each, time in days],
        )

    def test_what_happened_then_is_lifted_by_a_tenth_at_most(self, settings: Any) -> None:
        settings.MEMORY_TIME_WEIGHT = 0.5
        (first, lift), (second, none) = ask("What was last week?", asked_at=ASKED)
        assert (first, second, none) == ("then", "else", 0) and 0.09 < lift <= 0.101

    def test_a_question_without_a_time_and_a_weight_of_0_lift_nothing(self, settings: Any) -> None:
        settings.MEMORY_TIME_WEIGHT = 0
        assert ask("What was last week?", asked_at=ASKED) == [("else", 0), ("then", 0)]
        settings.MEMORY_TIME_WEIGHT = 0.1
        assert ask("What was it?", asked_at=ASKED) == [("else", 0), ("then", 0)]
        assert ask("What was last week?") == [("else", 0), ("then", 0)]  # as of now


@pytest.mark.django_db
def test_asked_at_needs_a_zone() -> None:
    body = {"query": "last week", "embedding": vector(), "asked_at": "2023-06-14T12:00:00"}
    response = person_client().post(f"{API}/memories/query", body, content_type="application/json")
    assert response.status_code == 400 and [each["field"] for each in response.json()["errors"]] == ["asked_at"]
