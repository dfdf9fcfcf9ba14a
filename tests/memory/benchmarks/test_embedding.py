"""`manage.py benchmark_index --model`, at sizes that say nothing about speed."""

import json
from io import StringIO

import pytest
from django.core.management import call_command

from memory.benchmarks import embedding


def test_prints_ratios_quiet_and_busy_and_the_processor_time_of_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "BUSY_PROCESSES", 1)
    out = StringIO()
    call_command("benchmark_index", "--model", "--questions", "2", "--slices", "2", "--json", stdout=out)
    report = json.loads(out.getvalue())
    questions, slices = report["results"][:4], report["results"][4:]
    assert [(row["machine"], row["by"]) for row in questions] == [
        (machine, by) for machine in ("quiet", "busy") for by in ("sealed memory", "sentence-transformers")
    ]
    assert [row["p50_ratio"] == 1 for row in questions] == [False, True, False, True]
    assert [row["slice of"] for row in slices] == list(embedding.SLICE_TEXTS)
    assert all(row["cpu_p50_ms"] > 0 and row["tokens"] <= 256 for row in slices)
    assert [target["bound"] for target in report["targets"]] == ["≤ 0.35", "≤ 0.25", "≤ 50", "≤ 50", "≤ 50"]
