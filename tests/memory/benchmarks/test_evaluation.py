"""`manage.py evaluate` on a collection of a handful of documents."""

import contextlib
import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from memory.benchmarks import embedding_cache, evaluation
from memory.benchmarks.beir import BadDataset, read_collection
from memory.benchmarks.bm25_baseline import BM25Baseline
from memory.benchmarks.evaluation import tenants
from memory.benchmarks.quality import targets
from memory.benchmarks.tenants import benchmark_user
from memory.exceptions import EmbeddingModelUnavailable, NoEmbedding
from memory.index import embedding_runtime
from memory.index.embedders import Kind
from memory.listing import list_chunks
from rerank import runtime
from rerank.backends import ServedModel
from rerank.ordering import Fusion
from tests.rerank.factories import FakeBackend, serve_with

CORPUS = [
    {"_id": "cats:1", "title": "Cats", "text": "Cats sleep for most of the day."},
    {"_id": "cats:2", "title": "", "text": "A kitten drinks milk from a saucer."},
    {"_id": "trains:1", "title": "Trains", "text": "The night train to Vienna leaves at ten."},
    {"_id": "trains:2", "title": "Tickets", "text": "A ticket for the railway costs twelve euros."},
]
QUERIES = [
    {"_id": "q1", "text": "How long do cats sleep?"},
    {"_id": "trains:q2", "text": "When does the train to Vienna leave?"},
    {"_id": "q3", "text": "Nobody judged this one."},
]
JUDGED = ["q1\tcats:1\t1", "trains:q2\ttrains:1\t2", "trains:q2\ttrains:2\t0"]


def write(path: Path, lines: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "animals"
    write(folder / "corpus.jsonl", CORPUS)
    write(folder / "queries.jsonl", QUERIES)
    write(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", *JUDGED])
    return folder


def evaluate(dataset: Path, *arguments: str) -> dict[str, Any]:
    out = StringIO()
    call_command("evaluate", "--json", "--dataset", str(dataset), "--verbosity", "0", *arguments, stdout=out)
    report: dict[str, Any] = json.loads(out.getvalue())
    return report


@pytest.mark.django_db
def test_every_mode_is_measured_and_nothing_stays_behind(dataset: Path) -> None:
    report = evaluate(dataset, "--modes", "dense", "lexical", "hybrid")
    assert report["benchmark"] == "evaluate animals, split test"
    assert [row["mode"] for row in report["results"]] == ["bm25", "dense", "lexical", "hybrid", "oracle"]
    for row in report["results"]:
        assert row["queries"] == 2
        assert row["ndcg@10"] == row["recall@5"] == row["recall_all@5"] == row["recall_any@5"] == row["mrr"] == 1.0
    assert [target["name"] for target in report["targets"]] == ["animals: nDCG@10 of hybrid above dense"]
    assert list_chunks(user_id=benchmark_user("evaluate-animals"), limit=1).chunks == []


@pytest.mark.django_db
def test_a_wrong_answer_costs_points(dataset: Path) -> None:
    write(dataset / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", "q1\ttrains:2\t1"])
    rows = {row["mode"]: row for row in evaluate(dataset, "--modes", "dense", "hybrid")["results"]}
    assert rows["dense"]["recall@24"] == 1.0
    assert rows["dense"]["ndcg@10"] < 1.0
    assert rows["oracle"]["ndcg@10"] == 1.0  # it is among the candidates
    assert rows["bm25"]["recall_any@24"] == 0.0  # shares no word with the question


@pytest.mark.django_db
def test_one_of_two_answers_is_any_but_not_all(dataset: Path) -> None:
    judged = ["q1\tcats:1\t1", "q1\tcats:none\t1"]
    write(dataset / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", *judged])
    (_, row) = evaluate(dataset, "--modes", "lexical")["results"]
    assert (row["recall_any@10"], row["recall@10"], row["recall_all@10"]) == (1.0, 0.5, 0.0)


@pytest.mark.django_db
def test_questions_are_counted_by_type_and_modes_compared(dataset: Path) -> None:
    typed = [QUERIES[0] | {"type": "habit"}, QUERIES[1] | {"metadata": {"type": 2}}, QUERIES[2]]
    write(dataset / "queries.jsonl", typed)
    report = evaluate(dataset, "--modes", "dense", "hybrid")
    found = {(row["type"], row["mode"]): row["queries"] for row in report["by_type"]}
    assert found == {(kind, mode): 1 for kind in ("2", "habit") for mode in ("bm25", "dense", "hybrid", "oracle")}
    assert [row["mode"] for row in report["differences"]] == ["bm25", "dense", "oracle"]
    assert all(row["low"] <= row["ndcg@10"] <= row["high"] for row in report["differences"])


@pytest.mark.django_db
def test_chunks_are_judged_where_they_are_the_unit(dataset: Path) -> None:
    chunks = ["Alice: When does it leave?", "Bob: At ten.", "Alice: Cats sleep all day."]
    write(dataset / "corpus.jsonl", [{"doc_id": "talk", "chunks": chunks}])
    write(dataset / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", "q1\ttalk/2\t1"])
    rows = {row["mode"]: row for row in evaluate(dataset, "--modes", "hybrid", "--unit", "chunk")["results"]}
    assert rows["hybrid"]["mrr"] == rows["bm25"]["mrr"] == 1.0
    assert rows["hybrid"]["chunks@24"] is None


@pytest.mark.django_db
def test_sentences_may_be_the_chunks(dataset: Path) -> None:
    corpus = [{"_id": "cats:1", "text": "Cats sleep all day. They eat at night. Nobody knows why."}, *CORPUS[1:]]
    write(dataset / "corpus.jsonl", corpus)
    report = evaluate(dataset, "--modes", "dense", "--sentences", "--limit-queries", "1")
    assert "4 documents in 6 chunks" in report["notes"][-2]
    (_, row) = report["results"]
    assert row["chunks@24"] == 1.0


@pytest.mark.django_db
def test_documents_without_text_are_left_out_and_named(dataset: Path) -> None:
    write(dataset / "corpus.jsonl", [*CORPUS, {"_id": "void", "title": "", "text": " "}, {"_id": "nil", "text": ""}])
    report = evaluate(dataset, "--modes", "dense")
    assert "2 documents without any text were left out: void, nil." in report["notes"]
    assert report["results"][-1]["ndcg@10"] == 1.0


@pytest.mark.django_db
def test_every_fusion_is_measured_on_the_same_candidates(dataset: Path, settings: Any) -> None:
    settings.RERANK_ENABLED = True
    write(dataset / "corpus.jsonl", [row | {"text": f"{row['text']} ={place}"} for place, row in enumerate(CORPUS)])
    serve_with(FakeBackend())
    try:
        report = evaluate(dataset, "--modes", "hybrid", "rerank", "--fusion-weights", "0", "1000")
    finally:
        runtime.reset()
    rows = {row["mode"]: row["mrr"] for row in report["results"]}
    assert list(rows) == [
        *("bm25", "hybrid", "oracle", "rerank replace", "rerank rrf", "rerank weighted 0", "rerank weighted 1000")
    ]
    # The backend likes the last document best: the answers end up fourth and second.
    assert rows["rerank weighted 0"] == rows["hybrid"] == 1.0
    assert rows["rerank replace"] == rows["rerank weighted 1000"] == (1 / 4 + 1 / 2) / 2
    assert rows["rerank replace"] < rows["rerank rrf"] <= 1.0


@pytest.mark.django_db
def test_a_model_that_is_not_for_long_passages_is_measured_as_it_is_served(dataset: Path, settings: Any) -> None:
    settings.RERANK_ENABLED = True
    write(dataset / "corpus.jsonl", [row | {"text": f"{row['text']} ={place}"} for place, row in enumerate(CORPUS)])
    backend = FakeBackend()
    backend.model = ServedModel("for short ones", fusion=Fusion("weighted", 1000, most_characters=20))
    serve_with(backend)
    try:
        report = evaluate(dataset, "--modes", "hybrid", "rerank")
    finally:
        runtime.reset()
    rows = {row["mode"]: row["mrr"] for row in report["results"]}
    assert rows["rerank weighted 1000"] == rows["hybrid"] > rows["rerank replace"]


@pytest.mark.django_db
def test_rerank_without_a_model_is_left_out_with_its_reason(dataset: Path, settings: Any) -> None:
    settings.RERANK_ENABLED = False
    report = evaluate(dataset, "--modes", "rerank")
    assert [row["mode"] for row in report["results"]] == ["bm25"]
    assert report["differences"] == report["by_type"] == []
    assert "rerank was not measured: RERANK_ENABLED is false." in report["notes"]


@pytest.mark.django_db
def test_embeddings_are_read_from_the_cache(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = evaluate(dataset, "--modes", "dense", "--cache", str(cache))
    monkeypatch.setattr(embedding_cache, "EMBED", {})
    second = evaluate(dataset, "--modes", "dense", "--cache", str(cache))
    assert second["results"][1]["ndcg@10"] == first["results"][1]["ndcg@10"]


@pytest.mark.django_db
def test_a_run_from_the_cache_does_not_wait_for_the_model_at_its_end(dataset: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    evaluate(dataset, "--modes", "dense", "--cache", cache)
    embedding_runtime.reset()
    assert len(evaluate(dataset, "--modes", "dense", "--cache", cache)["results"]) == 2


@pytest.mark.django_db
def test_questions_that_are_embedded_too_late_are_counted(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str) -> None:
        raise EmbeddingModelUnavailable("too late")

    monkeypatch.setattr(evaluation, "embed_query", refuse)
    assert "none of 2 was done in time" in evaluate(dataset, "--modes", "dense")["notes"][-1]


@pytest.mark.django_db
def test_only_new_texts_are_embedded(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(dataset, "--modes", "dense", "--cache", str(tmp_path / "cache"))
    write(dataset / "corpus.jsonl", [*CORPUS, {"_id": "dogs:1", "text": "A dog barks."}, CORPUS[0] | {"_id": "again"}])
    embedded: list[str] = []
    embed = embedding_cache.EMBED[Kind.PASSAGE]
    monkeypatch.setitem(embedding_cache.EMBED, Kind.PASSAGE, lambda texts: embedded.extend(texts) or embed(texts))
    evaluate(dataset, "--modes", "dense", "--cache", str(tmp_path / "cache"))
    assert embedded == ["A dog barks."]


def test_a_text_is_kept_as_a_question_and_as_a_passage(settings: Any, tmp_path: Path) -> None:
    settings.MEMORY_EMBEDDING_QUERY_PROMPT = "query: "
    asked, stored = (
        embedding_cache.embeddings(["A dog barks."], "texts", cache=tmp_path, kind=kind, verbosity=0) for kind in Kind
    )
    assert np.linalg.norm(asked - stored) > 0.1


@pytest.mark.parametrize(("reason", "attempts"), [(NoEmbedding.TIMEOUT, 2), (NoEmbedding.ERROR, 1)])
def test_a_batch_that_came_too_late_is_embedded_once_more(
    reason: NoEmbedding, attempts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a process was stopped, or a machine asleep."""
    asked: list[int] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        asked.append(len(texts))
        if len(asked) == 1:
            raise EmbeddingModelUnavailable("", reason)
        return np.ones((len(texts), 3), dtype=np.float32)

    monkeypatch.setitem(embedding_cache.EMBED, Kind.PASSAGE, embed)
    with contextlib.ExitStack() as stack:
        if attempts == 1:
            stack.enter_context(pytest.raises(EmbeddingModelUnavailable))
        embedding_cache.embeddings(["a", "b"], "texts", cache=tmp_path, verbosity=0)
    assert asked == [2] * attempts


@pytest.mark.django_db
def test_one_user_per_prefix_finds_its_own_documents_only(dataset: Path) -> None:
    report = evaluate(dataset, "--modes", "dense", "--per-tenant-prefix", "--keep")
    assert [row["ndcg@10"] for row in report["results"]] == [1.0, 1.0]
    assert "for 2 users" in report["notes"][-2]
    kept = list_chunks(user_id=benchmark_user("evaluate-animals-cats"), limit=10).chunks
    assert {chunk.doc_id for chunk in kept} == {"cats:1", "cats:2"}


def test_a_query_without_a_prefix_asks_the_tenant_of_its_answer(dataset: Path) -> None:
    users = tenants(read_collection(dataset), ":")
    assert users.of_query["q1"] == users.of_document["cats:1"] == benchmark_user("evaluate-animals-cats")
    assert users.of_query["trains:q2"] == users.of_document["trains:1"]


def test_queries_can_be_limited(dataset: Path) -> None:
    assert [query.query_id for query in read_collection(dataset, limit_queries=1).queries] == ["q1"]


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("qrels/test.tsv", ["query-id\tcorpus-id\tscore", "q1\tcats:1\tyes"], "whole score"),
        ("qrels/test.tsv", ["query-id\tcorpus-id\tscore", "q9\tcats:1\t1"], "no query"),
        ("corpus.jsonl", ["{"], "line 1"),
        ("queries.jsonl", ["{"], "line 1"),
        ("queries.jsonl", [{"text": "no id"}], "line 1"),
    ],
)
def test_bad_files_are_named(dataset: Path, file: str, lines: Sequence[Any], message: str) -> None:
    write(dataset / file, lines)
    with pytest.raises(BadDataset, match=message) as raised:
        read_collection(dataset)
    assert file.split("/")[-1] in str(raised.value)


def test_a_split_that_is_not_there_names_those_that_are(dataset: Path) -> None:
    with pytest.raises(BadDataset, match=r"Splits of this collection: test\.$"):
        read_collection(dataset, "train")


def test_the_baseline_is_bm25_over_plain_text() -> None:
    texts = {"a": "cat cat dog", "b": "cat mouse house garden tree", "c": "bird"}
    baseline = BM25Baseline(texts)
    assert baseline.best("cats", 24) == ["a", "b"]
    assert baseline.best("the bird and the cat", 24) == ["c", "a", "b"]  # a rare word weighs more
    assert baseline.best("the bird and the cat", 1) == ["c"]
    assert baseline.best("zebra", 24) == baseline.best("", 24) == []


def test_what_is_embedded_stands_behind_its_title(dataset: Path, settings: Any) -> None:
    write(dataset / "corpus.jsonl", [CORPUS[0], {"_id": "s", "title": "Trains", "text": "One leaves. One stays."}])
    collection = read_collection(dataset)
    assert collection.texts() == ["Cats: Cats sleep for most of the day.", "Trains: One leaves. One stays."]
    assert collection.by_sentence().texts()[1:] == ["Trains: One leaves.", "Trains: One stays."]
    settings.MEMORY_CONTEXT_HEADER = False
    assert collection.texts()[0] == "Cats sleep for most of the day."


def test_a_missing_folder_is_a_command_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        call_command("evaluate", "--dataset", str(tmp_path / "none"))


def test_targets_of_a_known_collection() -> None:
    rows = [{"mode": "dense", "ndcg@10": 0.645}, {"mode": "hybrid", "ndcg@10": 0.725}]
    assert [(target.bound, target.ok) for target in targets("scifact", rows)] == [("≥ 0.73", False), ("> 0.645", True)]
    assert targets("scifact", rows[:1]) == []
