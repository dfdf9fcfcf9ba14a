"""`manage.py benchmark_query`, with few rows: every engine is asked, recall is true, nothing stays behind."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from memory.benchmarks import peers
from memory.benchmarks.plans import explain
from memory.benchmarks.population import TURNS, Population, fill, row_number
from memory.benchmarks.query import DENSE, HYBRID, PLAIN, PRODUCT, UNROTATED, asked_tenants
from memory.benchmarks.query_targets import targets
from memory.benchmarks.tenants import erase
from memory.listing import list_chunks

POPULATION = Population(rows=60, tenants=3, words=6)
ARGUMENTS = ("--rows", "60", "--tenants", "3", "--words", "6", "--questions", "2", "--verbosity", "0")


def run(*arguments: str) -> dict[str, Any]:
    out = StringIO()
    call_command("benchmark_query", "--json", *ARGUMENTS, *arguments, stdout=out)
    report: dict[str, Any] = json.loads(out.getvalue())
    return report


def chunks(tenant: int) -> int:
    return len(list_chunks(user_id=POPULATION.user_id(tenant), limit=100).chunks)


@pytest.mark.django_db(transaction=True)
def test_exact_engines_have_recall_one_and_nothing_stays_behind() -> None:
    report = run("--peers")
    recalls = {row["engine"]: row["recall@24"] for row in report["results"] if "engine" in row}
    assert recalls == {PRODUCT: 1.0, HYBRID: 1.0, UNROTATED: 1.0, PLAIN: 1.0}
    plans = [row for row in report["results"] if "plan" in row]
    assert {row["score"] for row in plans} == {"dense", "hybrid"}
    assert all("memory_vectors" in row["plan"] and row["pages"] > 0 for row in plans)
    assert [chunks(tenant) for tenant in range(3)] == [0, 0, 0]


@pytest.mark.django_db(transaction=True)
def test_kept_memories_are_found_again_and_mended() -> None:
    run("--product-only", "--keep")
    assert sum(chunks(tenant) for tenant in range(3)) == 60
    assert fill(POPULATION, verbosity=0).written == 0
    erase([POPULATION.user_id(2)])
    report = run("--product-only")
    assert {row["engine"] for row in report["results"] if "engine" in row} == {PRODUCT, HYBRID}
    assert any(f"{POPULATION.sizes[2]} written" in note for note in report["notes"])


@pytest.mark.django_db(transaction=True)
def test_a_wrong_answer_lowers_recall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.benchmarks.query.row_number", lambda doc_id, chunk_index: -1)
    assert {row["recall@24"] for row in run("--product-only")["results"] if "engine" in row} == {0.0}


@pytest.mark.django_db(transaction=True)
def test_plans_are_those_of_the_candidates(settings: Any) -> None:
    fill(POPULATION, verbosity=0)
    memories = POPULATION.memories(0)
    explained = explain(POPULATION.user_id(0), query="one", vector=memories.vectors[0], weights=DENSE, limit=24)
    assert any("memory_vectors" in scan for scan in explained.scans)
    assert explained.pages >= explained.pages_read
    erase([POPULATION.user_id(tenant) for tenant in range(3)])


def test_a_population_is_the_same_every_time() -> None:
    first, second = POPULATION.memories(1), POPULATION.memories(1)
    assert first.texts == second.texts
    assert (first.vectors == second.vectors).all()
    assert POPULATION.memories(2).texts[0] not in first.texts
    documents = list(first.documents())
    assert sum(len(document.chunks) for document in documents) == POPULATION.sizes[1]
    last = documents[-1]
    assert row_number(last.doc_id, len(last.chunks) - 1) == POPULATION.sizes[1] - 1
    assert len(documents[0].chunks) == TURNS


def test_questions_are_near_what_they_ask_for() -> None:
    memories = POPULATION.memories(0)
    for text, vector in POPULATION.questions(0, memories, 5):
        assert (memories.vectors @ vector).max() > 0.5
        assert len(text.split()) == 8


def test_tenants_of_round_sizes_are_asked_smallest_first() -> None:
    sizes = Population(100_000, 1_000).sizes
    asked = asked_tenants(sizes)
    assert [sizes[tenant] for tenant in asked] == sorted(sizes[tenant] for tenant in asked)
    assert asked[-1] == 0
    assert len(asked) == 4
    assert asked_tenants([40, 10]) == [0]


def rows(ms: float, recall: float = 1.0, peer_ms: float = 3.0) -> list[dict[str, Any]]:
    def row(engine: str, p50: float, found: float = 1.0) -> dict[str, Any]:
        return {"tenant_rows": 1300, "engine": engine, "recall@24": found, "p50_ms": p50, "p95_ms": 2 * p50}

    return [row(PRODUCT, ms, recall), row(HYBRID, ms, recall), row(PLAIN, 1.0), row("other", peer_ms)]


@pytest.mark.parametrize(
    ("measured", "met"),
    [
        (rows(1.4), [True, True, True, True]),
        (rows(1.6), [True, True, False, True]),
        (rows(2.6), [True, False, False, True]),
        (rows(4.0), [True, False, False, False]),
        # Faster at lower recall is no win.
        (rows(1.4, recall=0.9), [False, True, True, False]),
    ],
)
def test_targets(measured: list[dict[str, Any]], met: list[bool]) -> None:
    assert [target.ok for target in targets(measured)] == met


@pytest.mark.parametrize("name", list(peers.PEERS))
@pytest.mark.filterwarnings("ignore")
def test_other_stores_answer_for_one_tenant(name: str, tmp_path: Path) -> None:
    pytest.importorskip(peers.PEERS[name][0])
    (peer,) = peers.open_peers([name], 8, tmp_path)
    eye = np.eye(8, dtype=np.float32)
    peer.add(0, eye[:6])
    peer.add(1, eye[::-1][:5].copy())
    peer.ready()
    assert peer.search(0, eye[2], 1) == [2]
    assert peer.search(1, eye[7], 1) == [0]


def test_a_missing_store_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(CommandError, match=r"pip install -r requirements-bench.txt"):
        call_command("benchmark_query", *ARGUMENTS, "--peers", "chroma")


def test_more_tenants_than_rows_is_refused() -> None:
    with pytest.raises(CommandError, match="at least --tenants"):
        call_command("benchmark_query", "--rows", "2", "--tenants", "3")


@pytest.mark.filterwarnings("ignore")
def test_the_plot_is_written_twice(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from memory.benchmarks.plot import plot

    paths = plot([*rows(1.0), {"tenant_rows": 1300, "plan": "a row without an engine"}], tmp_path / "plots")
    assert [path.suffix for path in paths] == [".png", ".svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert "tenant of 1,300 rows" in paths[1].read_text()
