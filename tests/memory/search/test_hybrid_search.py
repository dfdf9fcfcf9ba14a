"""What `query_memories` and `find_candidates` find, against brute force over the plain texts and original vectors."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from memory.documents.document import Chunk, Document
from memory.exceptions import InvalidFilter
from memory.indexing import index_documents
from memory.models import MemoryChunk, MemoryVector
from memory.rls import tenant_transaction
from memory.search.retrieval import query_memories
from memory.search.search_parameters import Weights
from tests.factories import drawn_documents, store_drawn
from tests.memory.brute_force import fused
from tests.memory.search.searches import found

pytestmark = pytest.mark.django_db


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("rotation", [True, False])
@pytest.mark.parametrize("query", ["when is the apollo launch", "tomato tomato river", "nothing known here", "the"])
def test_the_best_are_those_of_brute_force(rng, settings, rotation, query):
    settings.MEMORY_VECTOR_ROTATION = rotation
    documents = drawn_documents(rng, [1, 7, 2, 1, 30, 3, 1, 1])
    ids = store_drawn("person:1", documents)
    vector = rng.normal(size=384)
    expected = fused(query, vector, documents)
    candidates = found("person:1", query, vector)
    assert [c.id for c in candidates] == [ids[place] for place in np.argsort(-expected, kind="stable")[:24]]
    assert [c.score for c in candidates] == pytest.approx(np.sort(expected)[::-1][:24].tolist(), abs=1e-4)


@pytest.mark.parametrize(("lexical", "neighbour"), [(0.0, 0.0), (0.0, 0.25), (2.0, 0.0)])
def test_weights_are_settings(rng, settings, lexical, neighbour):
    settings.MEMORY_LEXICAL_WEIGHT, settings.MEMORY_NEIGHBOUR_WEIGHT = lexical, neighbour
    documents = drawn_documents(rng, [5, 5, 5])
    ids = store_drawn("person:1", documents)
    vector = rng.normal(size=384)
    expected = fused("apollo budget", vector, documents, lexical=lexical, neighbour=neighbour)
    assert found("person:1", "apollo budget", vector)[0].id == ids[int(np.argmax(expected))]


@pytest.mark.parametrize("weight", [0.25, 0.6])
def test_rows_beside_the_best_are_found_that_are_not_among_the_best_themselves(rng, settings, weight):
    settings.MEMORY_NEIGHBOUR_WEIGHT = weight
    documents = drawn_documents(rng, [5] * 40)
    ids = store_drawn("person:1", documents)
    lifted = 0
    for number in range(20):
        vector = documents[number][2][1] + rng.normal(size=384)
        unlifted = fused("apollo", vector, documents, neighbour=0.0)
        expected = fused("apollo", vector, documents, neighbour=weight)
        best = np.argsort(-expected, kind="stable")[:5]
        candidates = found("person:1", "apollo", vector, limit=5)
        assert [c.id for c in candidates] == [ids[place] for place in best]
        assert [c.score for c in candidates] == pytest.approx(expected[best].tolist(), abs=1e-4)
        lifted += len(set(best) - set(np.argsort(-unlifted, kind="stable")[:5]))
    assert lifted > 0


def test_keywords_alone_can_decide(rng):
    documents = drawn_documents(rng, [1] * 40)
    documents[17][0] = ("the zeppelin is in the shed", -np.ones(384))
    ids = store_drawn("person:1", documents)
    weights = Weights(dense=0.0, lexical=1.0, neighbour=0.0)
    assert found("person:1", "zeppelins", np.ones(384), weights=weights)[0].id == ids[17]


def test_without_the_index_vectors_decide(rng, settings):
    settings.MEMORY_LEXICAL_INDEX = False
    documents = drawn_documents(rng, [1] * 5)
    ids = store_drawn("person:1", documents)
    with tenant_transaction("person:1"):
        assert set(MemoryVector.objects.values_list("lexical", flat=True)) == {None}
    vector = documents[3][0][1]
    settings.MEMORY_LEXICAL_INDEX = True  # asked for terms that no row has
    (best, *_) = found("person:1", "apollo", vector)
    assert (best.id, best.score) == (ids[3], pytest.approx(1.0, abs=1e-5))


def test_stored_vectors_are_turned_and_chunks_give_back_the_original(rng):
    documents = drawn_documents(rng, [1])
    store_drawn("person:1", documents)
    original = documents[0][0][1]
    with tenant_transaction("person:1"):
        row = MemoryVector.objects.get()
        assert abs(np.dot(row.embedding, original / np.linalg.norm(original))) < 0.3
        assert MemoryChunk.objects.get().embedding == pytest.approx(original, rel=1e-6)


def test_the_parts_of_a_score_add_up_when_asked(rng):
    documents = drawn_documents(rng, [6])
    store_drawn("person:1", documents)
    asked = {"user_id": "person:1", "query": "apollo river", "top_k": 6, "embedding": rng.normal(size=384)}
    for match in query_memories(**asked, explain=True).matches:
        parts = match.explanation
        assert 0 <= parts.lexical <= 1
        base = parts.dense + 0.5 * parts.lexical
        total = base + 0.9 * max(0, parts.neighbours - base)
        assert match.retrieval_score == pytest.approx(total, abs=1e-6)
    assert query_memories(**asked).matches[0].explanation is None


def test_a_chunk_between_deleted_ones_has_no_neighbours(rng):
    documents = drawn_documents(rng, [3, 1])
    documents[0][1] = ("zeppelin", documents[0][1][1])
    ids = store_drawn("person:1", documents)
    with tenant_transaction("person:1"):
        MemoryChunk.objects.filter(id__in=[ids[0], ids[2]]).delete()
    best = found("person:1", "zeppelin", documents[0][1][1])[0]
    assert (best.id, best.neighbours) == (ids[1], 0)


@pytest.mark.usefixtures("readable_names")
@pytest.mark.parametrize("filters", [{"source": "mail"}, {"doc_id": "doc-1"}])
def test_filters_by_source_and_document(rng, filters):
    store_drawn("person:1", drawn_documents(rng, [2]), source="chat")
    index_documents(
        user_id="person:1",
        documents=[Document(doc_id="doc-1", source="mail", chunks=(Chunk("apollo", np.ones(384)),))],
    )
    assert {c.doc_id for c in found("person:1", "apollo", np.ones(384), **filters)} == {"doc-1"}


def test_filters_by_time(rng):
    store_drawn("person:1", drawn_documents(rng, [1]))
    now, minute = datetime.now(UTC), timedelta(minutes=1)
    ones = np.ones(384)
    assert len(found("person:1", "x", ones, created_after=now - minute, created_before=now + minute)) == 1
    assert not found("person:1", "x", ones, created_after=now + minute)
    assert not found("person:1", "x", ones, created_before=now - minute)


def test_filters_by_sealed_metadata(rng, settings, readable_names):
    settings.MEMORY_FILTERABLE_METADATA = ["project", "tags", "done"]
    for name, metadata in {
        "a": {"project": "apollo", "tags": ["moon", "nasa"], "done": True},
        "b": {"project": "gemini", "tags": ["earth"], "done": 1},
        "c": {},
    }.items():
        index_documents(
            user_id="person:1",
            documents=[Document(doc_id=name, source="", chunks=(Chunk("text", np.ones(384)),), metadata=metadata)],
        )

    def matching(**metadata):
        return {c.doc_id for c in found("person:1", "text", np.ones(384), metadata=metadata)}

    assert matching() == {"a", "b", "c"}
    assert matching(project="apollo") == matching(tags="nasa") == matching(done=True) == {"a"}
    assert matching(project="gemini", done=1) == matching(done=1.0) == {"b"}
    assert matching(project="apollo", done=1) == matching(project="'; DROP TABLE tenants; --") == set()
    with tenant_transaction("person:1"):
        stored = str(list(MemoryVector.objects.values_list("labels", flat=True)))
    assert "apollo" not in stored


@pytest.mark.parametrize("metadata", [{"colour": 1}, {"project = '' OR 1=1 --": 1}, {"project": {"a": 1}}])
def test_refuses_filters_it_does_not_index(settings, metadata):
    settings.MEMORY_FILTERABLE_METADATA = ["project"]
    with pytest.raises(InvalidFilter):
        found("person:1", "text", np.ones(384), metadata=metadata)


def test_two_tenants_carry_different_labels(settings):
    settings.MEMORY_FILTERABLE_METADATA = ["project"]
    carried = set()
    for user in ("person:1", "person:2"):
        store_drawn(user, [[("text", np.ones(384))]], metadata={"project": "apollo"})
        with tenant_transaction(user):
            carried.add(tuple(MemoryVector.objects.get().labels))
    assert len(carried) == 2


@pytest.mark.parametrize(
    "query", ["the of and", "🙂🎉", "東京都の天気", "word " * 10_000, " ".join(map(str, range(10_000)))]
)
def test_takes_any_query(rng, query):
    store_drawn("person:1", drawn_documents(rng, [3, 1]))
    assert len(found("person:1", query, rng.normal(size=384))) == 4


def test_no_rows_one_row_and_nothing_but_duplicates(rng):
    ones = np.ones(384)
    assert found("person:1", "apollo", ones) == []
    store_drawn("person:1", [[("apollo", ones)]])
    assert len(found("person:1", "apollo", ones)) == 1
    store_drawn("person:2", [[("apollo", ones)]] * 60)
    candidates = found("person:2", "apollo", ones)
    assert len({c.id for c in candidates}) == 24
    assert [c.score for c in candidates] == pytest.approx([1.5] * 24, abs=1e-4)
