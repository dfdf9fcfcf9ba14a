"""The report of a benchmark: the machine, the figures, and whether each target was met.

As JSON one object, the same for every command:

    {"benchmark", "machine", "versions", "results": [{…}, …], "targets": [{name, value, unit, bound, ok}, …], "notes"}

and, beside these, the sections that a benchmark adds, each a list of rows of its own.

A target that was missed is reported as missed; one that was not measured is left out.
"""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

Row = Mapping[str, Any]
PACKAGES = ("Django", "psycopg", "pgvector", "cryptography", "numpy", "torch", "onnxruntime", "sentence-transformers")


@dataclass(frozen=True)
class Target:
    """One figure that has a bound, such as value 0.93, unit "×", bound "≥ 0.8"."""

    name: str
    value: float
    unit: str
    bound: str
    ok: bool


def at_least(name: str, value: float, bound: float, unit: str = "") -> Target:
    """A target that is met from `bound` upwards."""
    return Target(name, _short(value), unit, f"≥ {_short(bound):g}", bool(value >= bound))


def more_than(name: str, value: float, bound: float, unit: str = "") -> Target:
    """A target that is met above `bound`."""
    return Target(name, _short(value), unit, f"> {_short(bound):g}", bool(value > bound))


def at_most(name: str, value: float, bound: float, unit: str = "") -> Target:
    """A target that is met up to `bound`."""
    return Target(name, _short(value), unit, f"≤ {_short(bound):g}", bool(value <= bound))


def less_than(name: str, value: float, bound: float, unit: str = "") -> Target:
    """A target that is met below `bound`."""
    return Target(name, _short(value), unit, f"< {_short(bound):g}", bool(value < bound))


def describe_machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory, system, and how busy the machine was already."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_average_1m": round(os.getloadavg()[0], 2),
    }


def describe_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Python and those of the packages that are installed."""
    return {"Python": platform.python_version(), **dict(_installed(packages))}


@dataclass
class Report:
    """The outcome of one benchmark. `results` are rows of plain values with the same keys, as the table shows them;
    `sections` more of them, by a name that becomes a key of the JSON object."""

    benchmark: str
    results: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=describe_versions)
    machine: dict[str, Any] = field(default_factory=describe_machine)
    sections: dict[str, list[Row]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The one object that `--json` prints."""
        return {
            "benchmark": self.benchmark,
            "machine": self.machine,
            "versions": self.versions,
            "results": [dict(row) for row in self.results],
            **{name: [dict(row) for row in rows] for name, rows in self.sections.items()},
            "targets": [asdict(target) for target in self.targets],
            "notes": self.notes,
        }

    def as_text(self) -> str:
        """The report for people: rows and sections as tables, then each target with its verdict, then the notes."""
        parts = [f"{self.benchmark}\n{_line(self.machine)}\n{_line(self.versions)}"]
        parts += [table(rows) for rows in _alike(self.results)]
        parts += [f"{name}\n{table(rows)}" for name, rows in self.sections.items() if rows]
        if self.targets:
            parts.append(table([_verdict(target) for target in self.targets]))
        parts += [f"Note: {note}" for note in self.notes]
        return "\n\n".join(parts)


def table(rows: Sequence[Row]) -> str:
    """Rows with the same keys as aligned columns, numbers to the right."""
    names = list(rows[0])
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    numeric = [all(_is_number(row.get(name)) for row in rows) for name in names]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [names, ["-" * width for width in widths], *cells]
    )


def _verdict(target: Target) -> Row:
    return {
        "target": target.name,
        "bound": target.bound,
        "value": target.value,
        "unit": target.unit,
        "": "met" if target.ok else "MISSED",
    }


def _alike(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Runs of rows with the same columns: each is a table of its own."""
    run: list[Row] = []
    for row in rows:
        if run and list(row) != list(run[0]):
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _line(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{_short(value):,}" if abs(value) >= 1000 else f"{_short(value):g}"
    return f"{value:,}" if _is_number(value) else str(value)


def _short(value: float) -> float:
    """Four significant digits, whole from 1,000 up: nothing beyond is reproducible."""
    return round(float(value)) if abs(value) >= 1000 else float(f"{value:.4g}")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _installed(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    for package in packages:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue
