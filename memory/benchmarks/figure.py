"""What the plots of benchmarks share: a row of panels with one legend under them, saved as PNG and SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

BOTTOM = 0.05  # of the figure's height, for each line of the legend


def panels(count: int, *, width: float, height: float, **options: Any) -> tuple[Any, Sequence[Any]]:
    """A figure of so many panels side by side, each `width` by `height` inches, and its axes."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, count, figsize=(width * count, height), squeeze=False, **options)
    return figure, list(axes[0])


def numbers(axis: Any, form: str) -> None:
    """Label the ticks of a logarithmic x axis with plain numbers in this format, and the minor ones not at all."""
    from matplotlib import ticker

    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: format(value, form)))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def save(figure: Any, folder: Path, name: str, *, title: str, columns: int) -> list[Path]:
    """Write `name`.png and `name`.svg into `folder`, with the first panel's legend below in so many columns."""
    from matplotlib import pyplot

    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=columns, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    lines = -(-len(labels) // columns)
    figure.tight_layout(rect=(0, 0.03 + BOTTOM * lines, 1, 1))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return paths
