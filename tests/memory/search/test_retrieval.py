"""Questions: the right rows in the right order, and never an unsealed guess."""

import logging
from typing import Any

import numpy as np
import pytest
from django.db import connection

from memory import metrics
from memory.exceptions import InvalidDocument
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.sealing.codecs import SealedBytes
from memory.search import retrieval
from memory.search.retrieval import QueryResult, query_memories
from tests.factories import ALICE, BOB, DIM, recall, remember, texts, vector_of


@pytest.mark.django_db
class TestQuery:
    def test_without_memories_there_is_no_answer(self) -> None:
        result = query_memories(user_id=ALICE, query="anything", embedding=vector_of("x"), top_k=5)
        assert (result.matches, result.integrity_failures) == ([], 0)
        assert {"embed", "candidates", "open"} <= set(result.timings_ms)

    def test_top_k_limits_and_reaches_beyond_the_candidates(self) -> None:
        remember(ALICE, "doc", *(f"text {number}" for number in range(40)))
        assert len(recall(ALICE, "text 7", top_k=1)) == 1
        assert len(recall(ALICE, "text 7", top_k=40)) == 40

    def test_the_score_of_the_same_vector_is_the_highest(self) -> None:
        remember(ALICE, "doc", "one", "two", "three")
        matches = recall(ALICE, "two")
        assert matches[0].text == "two"
        assert [match.retrieval_score for match in matches] == sorted(
            (match.retrieval_score for match in matches), reverse=True
        )

    def test_filters_by_source_and_document(self) -> None:
        remember(ALICE, "a", "one", source="chat")
        remember(ALICE, "b", "two", source="mail")
        assert texts(recall(ALICE, "one", source="mail")) == ["two"]
        assert texts(recall(ALICE, "one", doc_id="b")) == ["two"]
        assert texts(recall(ALICE, "one", source="mail", doc_id="a")) == []
        assert texts(recall(ALICE, "one", source="' OR 1=1 --")) == []

    def test_embeds_the_question(self, monkeypatch: pytest.MonkeyPatch) -> None:
        remember(ALICE, "doc", "one", "two")
        monkeypatch.setattr(retrieval, "embed_query", vector_of)
        assert query_memories(user_id=ALICE, query="two", top_k=1).matches[0].text == "two"

    @pytest.mark.parametrize("bad", [[1.0], [0.0] * DIM, [float("nan")] * DIM, "text"])
    def test_a_bad_vector_names_its_field(self, bad: Any) -> None:
        with pytest.raises(InvalidDocument) as caught:
            query_memories(user_id=ALICE, query="q", embedding=bad, top_k=1)
        assert caught.value.field == "embedding"

    def test_the_scale_of_a_vector_does_not_matter(self) -> None:
        remember(ALICE, "doc", "one", "two")
        large = query_memories(user_id=ALICE, query="two", embedding=vector_of("two") * 1e20, top_k=2).matches
        assert texts(large) == texts(recall(ALICE, "two"))


@pytest.mark.django_db
class TestTamperedRows:
    @pytest.fixture(autouse=True)
    def _rows(self) -> None:
        remember(ALICE, "doc", "kept", "PLANTED")
        with tenant_transaction(ALICE):
            row = MemoryChunk.objects.get(chunk_index=1)
            blob = bytearray(row.text_cipher)
            blob[20] ^= 1
            MemoryChunk.objects.filter(chunk_index=1).update(text_cipher=SealedBytes(blob))

    def test_are_left_out_counted_and_logged_by_id_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.ERROR):
            result = query_memories(user_id=ALICE, query="q", embedding=vector_of("PLANTED"), top_k=5)
        assert texts(result.matches) == ["kept"] and result.integrity_failures == 1
        (record,) = caplog.records
        with tenant_transaction(ALICE):
            assert vars(record)["chunk_id"] == str(MemoryChunk.objects.get(chunk_index=1).id)
        assert "PLANTED" not in str(vars(record)) and ALICE not in str(vars(record))

    @pytest.mark.parametrize("column, other", [("text", "emb"), ("meta", "text")])
    def test_are_left_out_where_the_seal_is_another_columns(self, column: str, other: str) -> None:
        (swapped,) = remember(ALICE, "swapped", "5")  # valid JSON, but no object
        with tenant_transaction(ALICE), connection.cursor() as cursor:
            cursor.execute(f"UPDATE memory_chunks SET {column}_cipher = {other}_cipher WHERE id = %s", [swapped])
        result = query_memories(user_id=ALICE, query="q", embedding=vector_of("5"), top_k=5)
        assert texts(result.matches) == ["kept"] and result.integrity_failures == 2

    def test_do_not_shorten_the_answer_when_there_are_others(self) -> None:
        remember(ALICE, "more", *(f"text {number}" for number in range(10)))
        assert len(recall(ALICE, "PLANTED", top_k=5)) == 5


@pytest.mark.django_db
def test_a_key_that_is_gone_hides_rows_and_says_so(settings: Any) -> None:
    from tests.factories import key

    remember(ALICE, "doc", "text")
    settings.MEMORY_ENCRYPTION_KEY = key()
    result = query_memories(user_id=ALICE, query="q", embedding=vector_of("text"), top_k=5)
    assert (result.matches, result.integrity_failures) == ([], 1)


@pytest.mark.django_db
class TestBytesOfAnAnswer:
    @pytest.fixture(autouse=True)
    def _rows(self, settings: Any) -> None:
        settings.MEMORY_MAX_ANSWER_BYTES = 2_500
        remember(ALICE, "doc", *(str(number) + "x" * 1_000 for number in range(6)))

    def ask(self, top_k: int) -> QueryResult:
        return query_memories(user_id=ALICE, query="q", embedding=vector_of("q"), top_k=top_k)

    def test_stop_at_the_budget_with_the_best_and_say_so(self, settings: Any) -> None:
        bounded = self.ask(6)
        settings.MEMORY_MAX_ANSWER_BYTES = 10_000
        whole = self.ask(6)
        assert (len(bounded.matches), bounded.truncated) == (2, True)
        assert (len(whole.matches), whole.truncated) == (6, False)
        assert texts(bounded.matches) == texts(whole.matches[:2])
        assert bounded.integrity_failures == 0

    def test_what_was_asked_for_is_not_called_truncated(self) -> None:
        assert not self.ask(2).truncated

    def test_rows_beyond_the_budget_are_not_opened(self) -> None:
        before = metrics.OPENS._value.get()
        self.ask(6)
        assert metrics.OPENS._value.get() - before == 2 * 3  # text, metadata and context

    def test_the_best_row_is_answered_whatever_its_size(self, settings: Any) -> None:
        settings.MEMORY_MAX_ANSWER_BYTES = 10
        assert len(self.ask(6).matches) == 1

    def test_count_on_the_graph_too(self, settings: Any) -> None:
        settings.MEMORY_EXACT_SCAN_MAX = 1
        remember(ALICE, "more", "text")
        assert (len(self.ask(6).matches), self.ask(6).truncated) == (3, True)


@pytest.mark.django_db
def test_reprs_of_results_hide_texts() -> None:
    remember(ALICE, "doc", "PLANTED", metadata={"k": "PLANTED"})
    result = query_memories(user_id=ALICE, query="q", embedding=vector_of("PLANTED"), top_k=5)
    assert result.matches and "PLANTED" not in repr(result)


@pytest.mark.django_db
def test_exact_scan_agrees_with_numpy(settings: Any) -> None:
    settings.MEMORY_NEIGHBOUR_WEIGHT = 0.0
    words = [f"text {number}" for number in range(60)]
    remember(ALICE, "doc", *words)
    remember(BOB, "doc", *words)
    scores = np.stack([vector_of(word) for word in words]) @ vector_of("question")
    best = [words[index] for index in np.argsort(-scores)[:24]]
    assert texts(recall(ALICE, "question", top_k=24)) == best


@pytest.mark.django_db
def test_no_transaction_is_open_while_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = len(connection.savepoint_ids)

    def embed(text: str) -> np.ndarray:
        assert len(connection.savepoint_ids) == depth
        return vector_of(text)

    monkeypatch.setattr(retrieval, "embed_query", embed)
    query_memories(user_id=ALICE, query="q", top_k=1)
