"""Plots the latency of questions over HTTP by tenant size, a panel for each number of clients."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memory.benchmarks import figure
from memory.benchmarks.report import Row

SERIES = {
    "query, plain": ("sealed memory", "#0072B2", "o"),
    "query, reranked": ("sealed memory, reranked", "#56B4E9", "s"),
    "query, chroma": ("chroma run, embedding by the client", "#D55E00", "^"),
}


def plot_http(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write benchmark_http.png and .svg into `folder`; returns the paths."""
    rows = [row for row in rows if row["work"] in SERIES and row["p50_ms"]]
    numbers = sorted({row["clients"] for row in rows})
    drawn, axes = figure.panels(len(numbers), width=3.4, height=4.0)
    for axis, clients in zip(axes, numbers, strict=True):
        _panel(axis, [row for row in rows if row["clients"] == clients])
        axis.set_title(f"{clients} client{'s' if clients > 1 else ''}", fontsize=10)
    axes[0].set_ylabel("ms, median; the line reaches to p95")
    return figure.save(drawn, folder, "benchmark_http", title="A question as text over HTTP", columns=3)


def _panel(axis: Any, rows: Sequence[Row]) -> None:
    for work, (label, colour, marker) in SERIES.items():
        found = sorted((row["tenant_rows"], row["p50_ms"], row["p95_ms"]) for row in rows if row["work"] == work)
        if found:
            sizes, medians, slow = zip(*found, strict=True)
            axis.plot(sizes, medians, color=colour, marker=marker, markerfacecolor="none", label=label)
            axis.vlines(sizes, medians, slow, color=colour, linewidth=1, alpha=0.5)
    axis.set_xscale("log")
    figure.numbers(axis, ",.0f")
    axis.set_ylim(bottom=0)
    axis.grid(True, linewidth=0.4)
    axis.set_xlabel("rows of the tenant")
