"""`manage.py benchmark_dump`: the attacks find what they can, and only that."""

import json
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from memory.benchmarks.dump_attacks import (
    NOWHERE,
    Rows,
    by_distances,
    by_geometry,
    by_size,
    by_weights,
    guessed,
    named,
    turning_back,
)
from memory.benchmarks.synthetic import Synthetic
from memory.benchmarks.tenants import benchmark_user
from memory.index.vector_rotation import VectorRotation
from memory.listing import list_chunks

DIM = 384
COUNT = 600


@pytest.fixture(scope="module")
def texts() -> np.ndarray:
    """Embeddings of texts, as an attacker makes them too."""
    return Synthetic(DIM, seed=1).vectors(COUNT)


@pytest.fixture(scope="module")
def rows(texts: np.ndarray) -> np.ndarray:
    """The same as a tenant stores them."""
    return VectorRotation(bytes(range(32)), DIM).apply(texts)


def as_rows(vectors: np.ndarray) -> Rows:
    return Rows(np.arange(len(vectors)), vectors, [{} for _ in vectors])


def test_known_texts_are_found_in_their_rows_by_their_cosines_alone(texts: np.ndarray, rows: np.ndarray) -> None:
    told = np.random.default_rng(0).permutation(COUNT)[:40]
    assert by_geometry(as_rows(rows), as_rows(texts[told])).tolist() == told.tolist()


def test_texts_of_somebody_else_are_found_nowhere(rows: np.ndarray) -> None:
    others = Synthetic(DIM, seed=2).vectors(20)
    assert set(by_geometry(as_rows(rows), as_rows(others))) == {NOWHERE}
    assert set(by_geometry(as_rows(rows), as_rows(rows[:2]))) == {NOWHERE}  # two cosines are none


def test_a_few_known_rows_show_a_text_that_is_tried_word_for_word(texts: np.ndarray, rows: np.ndarray) -> None:
    tried = np.concatenate([texts[10:], Synthetic(DIM, seed=2).vectors(100)])
    found = by_distances(rows, tried, rows[:10], texts[:10])
    assert found.tolist() == [*range(10, COUNT), *[NOWHERE] * 100]


def test_rows_are_turned_back_as_far_as_the_known_ones_span(texts: np.ndarray, rows: np.ndarray) -> None:
    back = rows @ turning_back(rows[:500], texts[:500])
    assert np.abs(back - texts).max() < 1e-4
    partly = rows @ turning_back(rows[:50], texts[:50])
    lengths = np.linalg.norm(partly[50:], axis=1)
    assert 0.2 < lengths.mean() < 0.95  # the rest of each vector stays unknown
    assert not (rows @ turning_back(rows[:0], texts[:0])).any()


def test_rows_are_found_by_what_no_key_hides() -> None:
    rows = Rows(np.array([40, 50, 50]), np.zeros((3, DIM)), [{7: 1.5}, {8: 1.5, 9: 0.5}, {7: 1.5}])
    texts = Rows(np.array([40, 50, 60]), np.zeros((3, DIM)), [{"cat": 1.5}, {"dog": 0.5, "cow": 1.50000001}, {"x": 3}])
    assert by_size(rows, texts).tolist() == [0, NOWHERE, NOWHERE]
    assert by_weights(rows, texts).tolist() == [NOWHERE, 1, NOWHERE]


def test_a_term_is_named_by_the_known_rows_it_stands_in() -> None:
    rows = [{1: 1.0, 2: 1.0}, {1: 1.0, 3: 2.0, 4: 2.0}]
    texts = [{"cat": 1.0, "dog": 1.0}, {"cat": 1.0, "owl": 2.0, "elk": 2.0}]
    assert named(rows, texts) == {1: "cat", 2: "dog"}  # owl and elk look alike


def test_what_is_not_certain_is_guessed_by_how_frequent_it_is() -> None:
    rows = [{1: 2.0, 2: 2.0}, {2: 1.0, 5: 1.0}, {2: 1.0, 5: 1.0}, {6: 1.0}]
    like = Counter({"owl": 3, "elk": 1, "fox": 2, "bee": 1})
    assert guessed(rows, [0], [{"owl": 2.0, "elk": 2.0}], like) == {2: "owl", 1: "elk", 5: "fox", 6: "bee"}
    assert guessed(rows, [], [], like) == {2: "owl", 5: "fox", 1: "bee", 6: "elk"}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "memories"
    (folder / "qrels").mkdir(parents=True)
    source = Synthetic(DIM, seed=3)
    texts = [" ".join(text.split()[: 20 + number]) for number, text in enumerate(source.texts(60, 80))]
    documents = [{"_id": f"d{number}", "title": "", "text": f"{text}."} for number, text in enumerate(texts)]
    queries = [
        {"_id": f"q{number}", "text": " ".join(each["text"].split()[:6])} for number, each in enumerate(documents)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents))
    (folder / "queries.jsonl").write_text("".join(json.dumps(each) + "\n" for each in queries))
    judged = "".join(f"q{number}\td{number}\t1\n" for number in range(60))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder


def run(dataset: Path, *arguments: str) -> dict[str, Any]:
    out = StringIO()
    call_command("benchmark_dump", "--json", "--dataset", str(dataset), "--verbosity", "0", *arguments, stdout=out)
    report: dict[str, Any] = json.loads(out.getvalue())
    return report


@pytest.mark.django_db
@pytest.mark.parametrize("lexical", [True, False])
def test_a_dump_is_attacked_and_nothing_stays_behind(dataset: Path, settings: Any, lexical: bool) -> None:
    settings.MEMORY_LEXICAL_INDEX = lexical
    report = run(dataset, "--known", "0", "2", "12", "1000", "--draws", "2")
    nothing, too_few, some = report["results"]
    assert [row["known"] for row in report["results"]] == [0, 2, 12]
    assert nothing["rows_by_size"] is nothing["cosine"] is None
    assert too_few["rows_by_cosines"] == 0.0
    assert some["rows_by_cosines"] == some["recognised"] == 1.0
    assert some["mistaken"] == 0.0
    assert 0.3 < some["cosine"] < 1.0
    assert (some["rows_by_terms"] > 0.8) is lexical
    assert (some["words"] > 0) is lexical
    assert some["words_wrong"] == 0.0
    assert any("1000 known texts were not measured" in note for note in report["notes"])
    assert "chunks of the same kind outside" in report["notes"][2]
    assert list_chunks(user_id=benchmark_user("dump-memories"), limit=1).chunks == []


def test_a_missing_folder_is_a_command_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        run(tmp_path / "none")
