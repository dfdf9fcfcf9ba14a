"""The report: one JSON object of one shape, and misses that are called misses."""

import json
from collections.abc import Iterator

import pytest

from memory.benchmarks.report import Report, at_least, at_most, describe_machine, less_than, more_than, table
from memory.benchmarks.timing import latencies, nanoseconds, percentile


def report() -> Report:
    return Report(
        "benchmark_something",
        results=[{"size": 1024, "ratio": 0.75123}, {"size": 65536, "ratio": None}, {"other": "row"}],
        targets=[at_least("ratio", 0.75123, 0.8, "×"), less_than("p99", 12.0, 50, "µs")],
        notes=["Half of it was not measured."],
    )


def test_json_is_one_object_of_plain_values() -> None:
    shown = json.loads(json.dumps(report().as_json()))
    assert list(shown) == ["benchmark", "machine", "versions", "results", "targets", "notes"]
    assert shown["targets"][0] == {"name": "ratio", "value": 0.7512, "unit": "×", "bound": "≥ 0.8", "ok": False}
    assert shown["results"][0] == {"size": 1024, "ratio": 0.75123}
    assert shown["versions"]["Python"].startswith("3.")
    assert shown["machine"]["cores"] >= 1


def test_text_names_a_miss_and_prints_rows_of_unequal_columns_apart() -> None:
    text = report().as_text()
    (missed,) = [line for line in text.splitlines() if "MISSED" in line]
    assert missed.startswith("ratio")
    (met,) = [line for line in text.splitlines() if line.endswith(" met")]
    assert met.startswith("p99")
    assert "Note: Half of it was not measured." in text
    assert "\n65,536       –\n\nother\n-----\nrow\n" in text


def test_table_aligns_words_left_and_numbers_right() -> None:
    assert table([{"a": "x", "n": 5}, {"a": "long", "n": 12345}]) == "\n".join(
        ["a          n", "----  ------", "x          5", "long  12,345"]
    )


@pytest.mark.parametrize(
    ("target", "ok"),
    [
        (at_least("a", 0.8, 0.8), True),
        (more_than("a", 0.8, 0.8), False),
        (at_most("a", 0.8, 0.8), True),
        (less_than("a", 0.8, 0.8), False),
        # The verdict is on the value as measured, not as rounded for print.
        (at_least("a", 0.79999, 0.8), False),
        (at_least("a", float("nan"), 0.8), False),
    ],
)
def test_bounds(target: object, ok: bool) -> None:
    assert target.ok is ok  # type: ignore[attr-defined]


def test_percentiles_are_measured_values() -> None:
    values = list(range(1, 101))
    assert [percentile(values, p) for p in (50, 95, 99)] == [50, 95, 99]
    assert latencies([3.0], 50, 99) == {"p50": 3.0, "p99": 3.0}


def test_every_call_is_timed() -> None:
    calls: Iterator[int] = iter(range(10))
    assert (nanoseconds(lambda: next(calls), 10) > 0).all()
    assert next(calls, None) is None


def test_machine_is_described() -> None:
    assert describe_machine()["memory_gib"] > 0
