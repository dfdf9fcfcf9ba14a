"""docs/architecture.md tells of the code there is: every name on it exists, and its arrows are the imports."""

import importlib
import re
from functools import cache
from pathlib import Path

import pytest

from tests.floor_plan import APPS, ROOM_OF_MODULE, ROOMS, imports, room_of

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
NAMES = sorted(set(re.findall(rf"\b(?:{'|'.join(APPS)})(?:\.\w+)+", PAGE)))
# Rooms that are no package: several modules at the root of memory.
SEVERAL = {f"memory.{room}" for room in ROOMS} - {f"memory.{room}" for room in ROOMS if room not in ("verbs", "shell")}


def resolved(name: str) -> object:
    """The module or what a module holds. Raises ImportError or AttributeError when there is none."""
    module, _, rest = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(resolved(module), rest)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SEVERAL])
def test_what_is_named_exists(name: str) -> None:
    assert resolved(name) is not None


def test_a_name_that_does_not_exist_is_noticed() -> None:
    with pytest.raises((ImportError, AttributeError)):
        resolved("memory.indexing.no_such_function")
    assert len(NAMES) > 50


def test_every_file_that_is_linked_exists() -> None:
    links = [*re.findall(r"\]\(([^)#]+)\)", PAGE)]
    assert links
    assert not [link for link in links if not (ROOT / "docs" / link).exists()]
    assert not [path for path in re.findall(r"`(tests/[\w/]+\.py)`", PAGE) if not (ROOT / path).exists()]


# --- The picture of the rooms ----------------------------------------------------------------------------------------
def drawn() -> set[tuple[str, str]]:
    picture = PAGE.split("```mermaid\nflowchart", 1)[1].split("```", 1)[0]
    return {(above, below) for above, below in re.findall(r"([\w.]+) --> ([\w.]+)", picture)}


@cache
def imported() -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports the second somewhere."""
    pairs = {(_room(name), _room(other)) for name, others in imports().items() for other in others}
    return {(room, other) for room, other in pairs if room != other}


def _room(module: str) -> str:
    app = module.split(".")[0]
    return app if app != "memory" or module == app else f"memory.{room_of(module)}"


def reached(room: str) -> set[str]:
    """What is below a room in the picture, along any number of arrows."""
    below = {to for start, to in drawn() if start == room}
    return below.union(*(reached(each) for each in below))


def test_every_arrow_is_an_import() -> None:
    assert drawn() - imported() == set()


def test_every_import_goes_along_arrows() -> None:
    assert {(room, other) for room, other in imported() if other not in reached(room)} == set()


def test_the_rooms_stand_at_most_ten_floors_high() -> None:
    assert max(floor(room) for room, _ in imported()) <= 10


@cache
def floor(room: str) -> int:
    return 1 + max((floor(below) for start, below in imported() if start == room), default=0)


def test_every_room_is_described() -> None:
    described = set(re.findall(r"^\| `([\w.]+)` \|", PAGE, re.M))
    rooms = {f"memory.{room}" for room in ROOMS} | set(APPS) - {"memory"}
    assert rooms <= described
    assert {"memory.security", "memory.metrics"} <= {f"memory.{module}" for module in ROOM_OF_MODULE}
