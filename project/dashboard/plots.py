"""A series of numbers as SVG that the server draws: no script, so the admin's policy holds; colours are the theme's."""

from collections.abc import Sequence
from dataclasses import dataclass

from project.dashboard.hours import Series
from project.dashboard.words import short

WIDTH, HEIGHT = 600, 120
"""In units of the SVG, which is stretched to its place; lines keep their thickness."""
COLOURS = ("a", "b", "c", "d")
"""Classes of `dashboard.css`: dashed where colour alone would tell two lines apart."""

Numbers = Sequence[float | None]


@dataclass(frozen=True)
class DrawnLine:
    """A line: what it shows, its class, its path, and its last number as text."""

    label: str
    colour: str
    path: str
    last: str


@dataclass(frozen=True)
class Plot:
    """A plot of several lines on one scale from 0 to `top`. `ticks`: (percent from the left, text) on the time axis."""

    title: str
    top: str
    lines: list[DrawnLine]
    ticks: list[tuple[float, str]]
    link: str = ""


def draw(title: str, series: Series, lines: dict[str, Numbers], *, unit: str = "", link: str = "") -> Plot:
    """A plot of numbers by label, one for every point of `series`. None leaves a gap."""
    top = max((value for numbers in lines.values() for value in numbers if value is not None), default=0.0)
    drawn = [
        DrawnLine(label, colour, path(numbers, top), f"{short(_last(numbers))}{unit}")
        for (label, numbers), colour in zip(lines.items(), COLOURS, strict=False)
    ]
    return Plot(title, f"{short(top)}{unit}", drawn, _ticks(series), link)


def path(numbers: Numbers, top: float) -> str:
    """An SVG path through the numbers, 0 at the bottom and `top` at the upper edge, begun anew after a gap."""
    across = WIDTH / max(1, len(numbers) - 1)
    parts, pen_is_down = [], False
    for point, value in enumerate(numbers):
        if value is None:
            pen_is_down = False
            continue
        y = HEIGHT - HEIGHT * value / top if top else HEIGHT
        # A point between two gaps is a line of no length, which round ends make visible.
        parts.append(f"{'L' if pen_is_down else 'M'}{point * across:.1f} {y:.1f}" + ("" if pen_is_down else "h0"))
        pen_is_down = True
    return "".join(parts)


def _last(numbers: Numbers) -> float:
    return next((value for value in reversed(numbers) if value is not None), 0.0)


def _ticks(series: Series) -> list[tuple[float, str]]:
    """Midnights, UTC: five at most."""
    days = [
        (100 * point / max(1, series.points - 1), at)
        for point in range(series.points)
        if (at := series.start + point * series.step).hour < series.step.total_seconds() / 3600
    ]
    every = max(1, -(-len(days) // 5))
    return [(round(percent, 1), f"{at:%d %b}") for percent, at in days[::-every]][::-1]
