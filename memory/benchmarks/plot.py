"""Plots recall against latency, a panel for each tenant size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memory.benchmarks import figure
from memory.benchmarks.report import Row
from memory.search.retrieval import CANDIDATES

RECALL = f"recall@{CANDIDATES}"
# Colours that colour-blind readers can tell apart (Okabe and Ito), and shapes for prints in grey.
MARKS = [
    ("#0072B2", "o"),
    ("#56B4E9", "s"),
    ("#999999", "D"),
    ("#000000", "X"),
    ("#D55E00", "^"),
    ("#E69F00", "v"),
    ("#009E73", "P"),
    ("#CC79A7", "*"),
]


def plot(rows: Sequence[Row], folder: Path, name: str = "benchmark_query") -> list[Path]:
    """Write the rows that have an engine as `name`.png and `name`.svg into `folder`; returns the paths."""
    rows = [row for row in rows if "engine" in row]
    sizes = sorted({row["tenant_rows"] for row in rows})
    names = list(dict.fromkeys(row["engine"] for row in rows))
    drawn, axes = figure.panels(len(sizes), width=3.2, height=4.2, sharex=True, sharey=True)
    for axis, size in zip(axes, sizes, strict=True):
        _panel(axis, [row for row in rows if row["tenant_rows"] == size], names)
        axis.set_title(f"tenant of {size:,} rows", fontsize=10)
    axes[0].set_xscale("log")
    figure.numbers(axes[0], "g")
    axes[0].set_ylim(min(0.9, min(row[RECALL] for row in rows) - 0.02), 1.01)
    axes[0].set_ylabel(f"recall@{CANDIDATES} against brute force")
    title = "Recall and median latency; the line reaches to p95"
    return figure.save(drawn, folder, name, title=title, columns=4)


def _panel(axis: Any, rows: Sequence[Row], names: Sequence[str]) -> None:
    axis.grid(True, which="major", linewidth=0.4)
    axis.set_xlabel("ms")
    for row in rows:
        colour, marker = MARKS[names.index(row["engine"]) % len(MARKS)]
        recall = row[RECALL]
        axis.plot([row["p50_ms"], row["p95_ms"]], [recall, recall], color=colour, linewidth=1, alpha=0.5)
        # Hollow: most engines are exact for small tenants, and their marks lie on one line.
        axis.plot(
            row["p50_ms"],
            recall,
            color=colour,
            marker=marker,
            markersize=8,
            markerfacecolor="none",
            markeredgewidth=1.6,
            linestyle="",
            label=row["engine"],
        )
