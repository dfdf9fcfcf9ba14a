"""`manage.py benchmark_index --import-file` and `--reindex`, with few rows."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from memory.benchmarks import ingestion
from memory.benchmarks.bare_session import BareSession
from memory.benchmarks.ingestion import Writer, import_row, import_targets, reindex_targets
from memory.index.embedding import embed_passages
from memory.listing import list_chunks

pytestmark = pytest.mark.django_db(transaction=True)
TEXTS = ["The garden is by the river.", "Milo is afraid of the vacuum cleaner and hides.", "Keys."]


def report(*arguments: str) -> dict[str, list[dict[str, object]]]:
    out = StringIO()
    call_command("benchmark_index", "--json", "--verbosity", "0", *arguments, stdout=out)
    found: dict[str, list[dict[str, object]]] = json.loads(out.getvalue())
    return found


def test_an_import_beside_the_session_alone(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"_id": str(n), "text": text}) for n, text in enumerate(TEXTS)))
    found = report("--import-file", str(path), "--limit", "2")
    assert [row["work"] for row in found["results"]] == ["import", "session, 256 tokens", "session, 4096 tokens"]
    assert {row["chunks"] for row in found["results"]} == {2}
    (target,) = found["targets"]
    assert target["bound"] == "≥ 0.9"
    assert list_chunks(user_id="service:benchmark:import", limit=1).chunks == []


def test_the_session_alone_makes_the_services_vectors() -> None:
    longest_first = sorted(TEXTS, key=len, reverse=True)
    assert BareSession().embed(TEXTS, tokens=16) == pytest.approx(embed_passages(longest_first), abs=1e-5)


def test_a_writer_beside_a_reindex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingestion, "IDLE_SECONDS", 0.2)
    found = report("--reindex", "12", "--words", "5")
    idle, beside = found["results"]
    assert (idle["load"], beside["load"]) == ("idle", "beside a reindex")
    assert beside["writes"] and beside["reindex_s"]
    assert [target["bound"] for target in found["targets"]] == ["≤ 1", "≤ 1", "≤ 0"]
    assert list_chunks(user_id="service:benchmark:reindex", limit=1).chunks == []


def test_another_model_has_no_other_name(settings: pytest.FixtureRequest) -> None:
    settings.MEMORY_EMBEDDING_MODEL = "another"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="MEMORY_EMBEDDING_MODEL"), ingestion.another_name_of_the_model():
        pass


def test_targets() -> None:
    rows = [import_row(name, 10, 10, seconds) for name, seconds in (("import", 10.0), ("a", 9.5), ("b", 8.9))]
    (target,) = import_targets(rows)
    assert (target.value, target.ok) == (0.89, False)
    longest, waiting, failed = reindex_targets(20, Writer("u", 1, seconds=[0.5, 1.01], given=[0.9], failed=1))
    assert (longest.ok, waiting.ok, failed.ok) == (False, True, False)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(CommandError, match="No such file"):
        call_command("benchmark_index", "--import-file", "nowhere.jsonl")
