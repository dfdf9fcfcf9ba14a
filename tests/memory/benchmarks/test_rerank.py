import json

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from rerank import runtime


def test_reports_every_target_as_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("benchmark_rerank", "--random-weights", "--json", queries=2, overload_seconds=0.2)
    report = json.loads(capsys.readouterr().out)
    assert report["machine"]["cores"] and report["versions"]["torch"]
    assert {row.get("tokens") for row in report["results"]} >= {20, 60, 120, 300}
    assert len(report["targets"]) == 6
    assert "order is noise" in report["notes"][0]
    assert runtime.current().engine is None


def test_without_weights_it_says_how_to_go_on(settings: Settings, tmp_path: object) -> None:
    settings.RERANK_MODEL = f"{tmp_path}/absent"
    with pytest.raises(CommandError, match="--random-weights"):
        call_command("benchmark_rerank", queries=2)
