"""docs/reference.md tells of every setting, command, metric and system check there is, and of no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from database.dsn import VARIABLES

APPS = ("project", "keys", "memory", "rerank")
METRICS = {"Counter", "Gauge", "Histogram", "Summary", "Info", "GaugeMetricFamily", "_gauge"}
NOT_OURS = {"DJANGO_SETTINGS_MODULE"}


def sources() -> Iterator[ast.Module]:
    for app in APPS:
        for path in sorted((Path(settings.BASE_DIR) / app).rglob("*.py")):
            yield ast.parse(path.read_text(), str(path))


def first_argument(call: ast.Call) -> str | None:
    match call.args:
        case [ast.Constant(value=str(text)), *_]:
            return text
    return None


def calls() -> Iterator[tuple[str, str]]:
    """(dotted name of what is called, its first argument) of every call with a literal first argument."""
    for module in sources():
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and (argument := first_argument(node)):
                yield ast.unparse(node.func), argument


def existing_settings() -> set[str]:
    reads = re.compile(r"env\.\w+|env|os\.environ\.(get|setdefault)|os\.getenv")
    return {name for function, name in calls() if reads.fullmatch(function)} - NOT_OURS | set(VARIABLES.values())


def existing_commands() -> set[str]:
    folders = [Path(settings.BASE_DIR) / app / "management" / "commands" for app in APPS]
    return {path.stem for folder in folders for path in folder.glob("*.py") if not path.stem.startswith("_")}


def existing_metrics() -> set[str]:
    return {name for function, name in calls() if function.rpartition(".")[2] in METRICS and "_" in name}


def existing_checks() -> set[str]:
    pattern = re.compile(rf"({'|'.join(APPS)})\.[DIWEC]\d{{3}}")
    constants = (node.value for module in sources() for node in ast.walk(module) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and pattern.fullmatch(value)}


EXISTING = {
    "Settings": existing_settings,
    "Commands": existing_commands,
    "Metrics": existing_metrics,
    "Checks": existing_checks,
}


def documented(kind: str) -> list[str]:
    """The names in the first column of a kind's tables."""
    text = (Path(settings.BASE_DIR) / "docs" / "reference.md").read_text()
    (section,) = re.findall(rf"^## {kind}$(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)


@pytest.mark.parametrize("kind", EXISTING)
def test_reference_is_complete_and_tells_of_nothing_else(kind: str) -> None:
    existing = EXISTING[kind]()
    assert existing, "found nothing: this test looks in the wrong places"
    assert existing - set(documented(kind)) == set(), "undocumented: add it to docs/reference.md"
    assert set(documented(kind)) - existing == set(), "documented, but gone: remove it from docs/reference.md"


@pytest.mark.parametrize("kind", EXISTING)
def test_reference_names_each_once(kind: str) -> None:
    assert len(documented(kind)) == len(set(documented(kind)))
