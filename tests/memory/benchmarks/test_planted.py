"""`manage.py benchmark_query --planted`: victims of both sizes are asked, and changed answers and slowness are seen."""

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from memory.benchmarks import planted
from memory.benchmarks.planted import Planting, _plant


@pytest.fixture(autouse=True)
def few_rows(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.MEMORY_EXACT_SCAN_MAX = 300
    monkeypatch.setattr(planted, "SMALL_VICTIM", 40)
    monkeypatch.setattr(planted, "BEYOND", 20)


def run() -> dict[str, Any]:
    out = StringIO()
    call_command("benchmark_query", "--json", "--planted", "50", "--verbosity", "0", stdout=out)
    report: dict[str, Any] = json.loads(out.getvalue())
    return report


@pytest.mark.django_db(transaction=True)
def test_copies_of_somebody_else_change_no_answer_and_nothing_stays_behind() -> None:
    report = run()
    assert [(row["tenant_rows"], row["rotation"]) for row in report["results"]] == [
        (40, "on"),
        (320, "on"),
        (40, "off"),
        (320, "off"),
    ]
    assert {row["changed"] for row in report["results"]} == {0}
    assert all(row["p50_ms"] > 0 and row["ratio"] > 0 for row in report["results"])
    assert len(report["targets"]) == 8
    assert report["notes"][0].startswith("301 copies")


@pytest.mark.django_db(transaction=True)
def test_copies_among_the_own_rows_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    victims: list[str] = []
    make = planted._victim

    def victim(plan: Planting, user_id: str, size: int) -> Any:
        victims.append(user_id)
        return make(plan, user_id, size)

    monkeypatch.setattr(planted, "_victim", victim)
    monkeypatch.setattr(planted, "_plant", lambda plan, user_id, question: _plant(plan, victims[-1], question))
    report = run()
    assert any(row["changed"] for row in report["results"] if row["tenant_rows"] == 320)
    assert not all(target["ok"] for target in report["targets"] if "changed" in target["name"])
