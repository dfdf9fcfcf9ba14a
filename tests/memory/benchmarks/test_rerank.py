import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from memory.benchmarks.rerank import _overload_targets
from rerank import runtime
from tests.rerank.factories import export_model, write_small_model


def test_reports_every_target_as_one_json_object(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    settings.RERANK_FALLBACK_MODEL = str(export_model(write_small_model(tmp_path / "small"), tmp_path / "bundle"))
    call_command("benchmark_rerank", "--random-weights", "--json", queries=2, overload_seconds=0.2)
    report = json.loads(capsys.readouterr().out)
    assert report["machine"]["cores"] and report["versions"]["torch"]
    assert {row.get("tokens") for row in report["results"]} >= {20, 60, 120, 300}
    assert {
        "p95 of 24 candidates of ~120 tokens",
        "requests reranked at 10 × capacity",
        "seconds to load tiny",
        "p95 of 24 candidates of ~60 tokens by tiny",
    } <= {target["name"] for target in report["targets"]}
    measured = {(row["scorer"], row["tokens"]) for row in report["results"] if "tokens" in row}
    assert measured == {(scorer, tokens) for scorer in ("plain", "ours", "tiny") for tokens in (20, 60, 120, 300)}
    assert "order is noise" in report["notes"][0]
    assert runtime.current().engine is None


def test_without_weights_it_says_how_to_go_on(settings: Settings, tmp_path: object) -> None:
    settings.RERANK_MODEL = f"{tmp_path}/absent"
    with pytest.raises(CommandError, match="--random-weights"):
        call_command("benchmark_rerank", queries=2)


def test_an_overload_in_which_nobody_was_reranked_is_missed_and_not_met() -> None:
    nothing = {"reranked": 0, "reranked_p99_ms": None, "turned_away_p99_ms": None, "memory_growth_mib": 0.0}
    assert [target.ok for target in _overload_targets(nothing)] == [False, True]
