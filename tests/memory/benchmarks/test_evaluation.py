"""`manage.py evaluate` on a collection of a handful of documents."""

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from memory.benchmarks.beir import BadDataset, read_collection
from memory.benchmarks.evaluation import targets, tenants
from memory.benchmarks.tenants import benchmark_user
from memory.listing import list_chunks

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
    assert [row["mode"] for row in report["results"]] == ["dense", "lexical", "hybrid"]
    for row in report["results"]:
        assert row["queries"] == 2
        assert row["ndcg@10"] == row["recall@5"] == row["mrr"] == 1.0
    assert [target["name"] for target in report["targets"]] == ["animals: nDCG@10 of hybrid above dense"]
    assert list_chunks(user_id=benchmark_user("evaluate-animals"), limit=1).chunks == []


@pytest.mark.django_db
def test_a_wrong_answer_costs_points(dataset: Path) -> None:
    write(dataset / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", "q1\ttrains:2\t1"])
    (row,) = evaluate(dataset, "--modes", "lexical")["results"]
    assert row["recall@24"] == 1.0
    assert row["ndcg@10"] < 1.0


@pytest.mark.django_db
def test_rerank_without_a_model_is_left_out_with_its_reason(dataset: Path, settings: Any) -> None:
    settings.RERANK_ENABLED = False
    report = evaluate(dataset, "--modes", "rerank")
    assert report["results"] == []
    assert "rerank was not measured: RERANK_ENABLED is false." in report["notes"]


@pytest.mark.django_db
def test_embeddings_are_read_from_the_cache(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = evaluate(dataset, "--modes", "dense", "--cache", str(cache))
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr("memory.benchmarks.embedding_cache.embed_passages", None)
    second = evaluate(dataset, "--modes", "dense", "--cache", str(cache))
    assert second["results"][0]["ndcg@10"] == first["results"][0]["ndcg@10"]


@pytest.mark.django_db
def test_one_user_per_prefix_finds_its_own_documents_only(dataset: Path) -> None:
    report = evaluate(dataset, "--modes", "dense", "--per-tenant-prefix", "--keep")
    assert report["results"][0]["ndcg@10"] == 1.0
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


def test_a_missing_folder_is_a_command_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        call_command("evaluate", "--dataset", str(tmp_path / "none"))


def test_targets_of_a_known_collection() -> None:
    rows = [{"mode": "dense", "ndcg@10": 0.645}, {"mode": "hybrid", "ndcg@10": 0.725}]
    assert [(target.bound, target.ok) for target in targets("scifact", rows)] == [("≥ 0.73", False), ("> 0.645", True)]
    assert targets("scifact", rows[:1]) == []
