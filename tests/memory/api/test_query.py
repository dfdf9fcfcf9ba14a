"""What the query endpoint takes besides a question."""

import pytest

from tests.factories import API, index, person_client, vector

pytestmark = pytest.mark.django_db


def ask(client, **fields):
    body = {"query": "apollo", "embedding": vector(), **fields}
    return client.post(f"{API}/memories/query", body, content_type="application/json")


def test_explains_each_score_when_asked():
    client = person_client()
    index(client, "the apollo launch")
    (match,) = ask(client, explain=True).json()["matches"]
    assert match["explanation"] == {
        "dense": pytest.approx(1, abs=1e-5),
        "lexical": pytest.approx(1),
        "neighbours": 0,
        "time": 0,
    }
    assert not ask(client).json()["matches"][0].get("explanation")


def test_filters_by_metadata_and_time(settings):
    settings.MEMORY_FILTERABLE_METADATA = ["project"]
    client = person_client()
    index(client, doc_id="a", metadata={"project": "apollo"})
    index(client, doc_id="b", metadata={"project": "gemini"})
    matches = ask(client, metadata={"project": "apollo"}, created_before="2100-01-01T00:00:00+02:00").json()["matches"]
    assert [match["doc_id"] for match in matches] == ["a"]
    assert ask(client, created_after="2100-01-01T00:00:00Z").json()["matches"] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"explain": 1},
        {"explain": "true"},
        {"created_after": "2026-01-01"},
        {"created_after": "2026-01-01T00:00:00"},
        {"created_before": 5},
        {"created_before": "\0"},
        {"metadata": {"unknown": 1}},
        {"metadata": {"project": ["a"]}},
        {"metadata": {"project": {"a": 1}}},
        {"metadata": ["project"]},
        {"metadata": {"project": "\0"}},
        {"metadata": {"project') OR true --": "x"}},
    ],
)
def test_refuses_what_it_cannot_filter_by(settings, fields):
    settings.MEMORY_FILTERABLE_METADATA = ["project"]
    response = ask(person_client(), **fields)
    assert response.status_code == 400
    (name,) = fields
    assert name in response.content.decode()
