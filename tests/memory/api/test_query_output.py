"""The answer to a query is written by hand: it says what the described fields would."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import JSONRenderer

from memory.api.base_view import valid
from memory.api.serializers import MatchOutput, QueryInput, QueryOutput
from memory.exceptions import NoEmbedding
from memory.search.matches import Explanation, Match
from memory.search.retrieval import QueryResult
from rerank import Reranker, SkipReason

NOW = datetime(2026, 5, 4, 3, 2, 1, 999, tzinfo=UTC)
PLAIN = Match(uuid4(), "doc", "", 0, "text", {"a": [1, None]}, 0.5, NOW)
FULL = Match(
    id=uuid4(),
    doc_id="doc",
    source="chat",
    chunk_index=3,
    text="ein Wörtchen",
    metadata={},
    retrieval_score=-1e-7,
    created_at=NOW.astimezone(timezone(timedelta(hours=2))),
    title="title",
    author="author",
    occurred_at=NOW.astimezone(timezone(timedelta(hours=-3))),
    expires_at=NOW,
    score=2.5,
    explanation=Explanation(0.1, 0.2, 0.3),
)
RESULTS = [
    QueryResult([], 0, {"embed": 1.5}),
    QueryResult([PLAIN], 1, {"embed": 1.5, "open": 0.1}, skip_reason=SkipReason.LOADING, truncated=True),
    QueryResult([], 0, {}, degraded=next(iter(NoEmbedding))),
    QueryResult([FULL, PLAIN], 0, {}, reranked=True, reranker=Reranker("model", "rrf")),
]


def described(result: QueryResult) -> dict[str, object]:
    """As the fields alone would write it."""
    output = QueryOutput(result)
    return serializers.Serializer.to_representation(output, result) | {
        "matches": [serializers.Serializer.to_representation(MatchOutput(match), match) for match in result.matches]
    }


@pytest.mark.parametrize("result", RESULTS)
def test_it_is_what_the_fields_describe(result: QueryResult) -> None:
    written, expected = QueryOutput(result).data, described(result)
    assert written == expected
    assert list(written) == list(expected)
    assert JSONRenderer().render(written) == JSONRenderer().render(expected)


class TestOneSerializerForAllRequests:
    def test_keeps_nothing_of_the_one_before(self) -> None:
        assert valid(QueryInput, {"query": "a", "top_k": 3, "source": "chat"})["top_k"] == 3
        second = valid(QueryInput, {"query": "b"})
        assert (second["query"], second["top_k"], second["scope"].source) == ("b", 10, None)

    @pytest.mark.parametrize("data", [None, [], "text", {}, {"query": 1, "nonsense": 2}, {"query": "a", "top_k": "3"}])
    def test_refuses_as_a_serializer_of_its_own(self, data: object) -> None:
        own = QueryInput(data=data)
        assert not own.is_valid()
        with pytest.raises(ValidationError) as raised:
            valid(QueryInput, data)
        assert raised.value.detail == own.errors
