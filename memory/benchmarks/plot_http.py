"""Plots the latency of questions over HTTP by tenant size, a panel for each number of clients."""

from collections.abc import Sequence
from pathlib import Path

from memory.benchmarks.report import Row

SERIES = {
    "query, plain": ("sealed memory", "#0072B2", "o"),
    "query, reranked": ("sealed memory, reranked", "#56B4E9", "s"),
    "query, chroma": ("chroma run, embedding by the client", "#D55E00", "^"),
}


def plot_http(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write benchmark_http.png and .svg into `folder`; returns the paths."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot, ticker

    rows = [row for row in rows if row["work"] in SERIES and row["p50_ms"]]
    numbers = sorted({row["clients"] for row in rows})
    figure, axes = pyplot.subplots(1, len(numbers), figsize=(3.4 * len(numbers), 4.0), squeeze=False)
    for axis, clients in zip(axes[0], numbers, strict=True):
        for work, (label, colour, marker) in SERIES.items():
            drawn = sorted(
                (row["tenant_rows"], row["p50_ms"], row["p95_ms"])
                for row in rows
                if row["work"] == work and row["clients"] == clients
            )
            if drawn:
                sizes, medians, slow = zip(*drawn, strict=True)
                axis.plot(sizes, medians, color=colour, marker=marker, markerfacecolor="none", label=label)
                axis.vlines(sizes, medians, slow, color=colour, linewidth=1, alpha=0.5)
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.grid(True, linewidth=0.4)
        axis.set_xlabel("rows of the tenant")
        axis.set_title(f"{clients} client{'s' if clients > 1 else ''}", fontsize=10)
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes[0][0].set_ylabel("ms, median; the line reaches to p95")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle("A question as text over HTTP", fontsize=11)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"benchmark_http.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return paths
