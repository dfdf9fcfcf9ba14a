"""Times and numbers as a person reads them."""

from datetime import datetime, timedelta

UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def span(length: timedelta) -> str:
    """`3 days`, `1 hour`, `12 minutes`, `8 seconds`: the largest unit that fits, cut off."""
    seconds = max(0, int(length.total_seconds()))
    for size, name in (*UNITS, (1, "second")):
        if seconds >= size:
            return count(seconds // size, name)
    return "0 seconds"


def count(number: int, name: str) -> str:
    """`1 seal`, `1,200 seals`."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def ago(length: timedelta) -> str:
    """`3 days ago`."""
    return f"{span(length)} ago"


def day(at: datetime) -> str:
    """`2026-11-26`."""
    return f"{at:%Y-%m-%d}"


def milliseconds(seconds: float | None) -> str:
    """`12 ms`, `0.8 ms`; a dash for None."""
    if seconds is None:
        return "–"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"


def short(number: float) -> str:
    """`950`, `12.3 k`, `4.56 M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.2g}"
