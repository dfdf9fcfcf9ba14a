"""The floor plan: imports go down only, between apps, between the rooms of `memory`, and between files.

A room is an app, a package inside `memory`, or a module at its root. `security` and `rls` stand at the root because the
specification has them there; `security` belongs to `sealing`, and `rls`, the door itself, is a room above `tenancy`.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = ("database", "inference", "keys", "rerank", "memory", "project")
MAY_IMPORT = {
    "database": set(),
    "inference": set(),
    "keys": set(),
    "rerank": {"inference"},
    "memory": {"database", "inference", "keys", "rerank"},
    "project": {"database", "inference", "keys", "rerank", "memory"},
}
# The rooms of memory from the ground up: each imports those before it.
ROOMS = (
    "sealing",
    "tenancy",
    "rls",
    "access",
    "index",
    "documents",
    "search",
    "rotation",
    "models",
    "verbs",
    "api",
    "benchmarks",
    "shell",
)
RERANK_ROOMS = ({"outcomes", "metrics", "latency"}, {"weights"}, {"backends"}, {"engine"})
ROOM_OF_MODULE = {
    **dict.fromkeys(("exceptions", "metrics", "security"), "sealing"),
    **dict.fromkeys(("indexing", "importing", "listing", "erasure"), "verbs"),
    # What Django looks for by name, and the commands: they may import everything.
    **dict.fromkeys(("admin", "apps", "checks", "management"), "shell"),
}
MOST_ROOT_MODULES = 14


@cache
def modules() -> Mapping[str, Path]:
    """Every product module by its dotted name; migrations are frozen and no part of the plan."""
    found = {}
    for app in APPS:
        for path in (ROOT / app).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if "migrations" not in parts:
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> Mapping[str, frozenset[str]]:
    """The modules of ours that each module imports, also inside functions."""
    return {name: frozenset(_imported(name, path)) - {name} for name, path in modules().items()}


def _imported(name: str, path: Path) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield from [each for each in (f"{base}.{alias.name}", base) if each in modules()][:1]


def room_of(module: str) -> str:
    """`memory.search.candidates` → `search`, `memory.security` → `sealing`."""
    first = (module.split(".") + [""])[1]
    return ROOM_OF_MODULE.get(first, first)


@pytest.mark.parametrize("app", APPS)
def test_an_app_imports_only_what_it_may(app: str) -> None:
    own = [name for name in modules() if name.split(".")[0] == app]
    assert own
    wrong = {
        f"{name} imports {imported}"
        for name in own
        for imported in imports()[name]
        if imported.split(".")[0] not in MAY_IMPORT[app] | {app}
    }
    assert not wrong


def test_no_app_reaches_into_the_tests() -> None:
    wrong = [name for name, path in modules().items() if "tests" in set(_top_level_names(path))]
    assert not wrong


def _top_level_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_memory_imports_only_rooms_below_it(room: str) -> None:
    own = [name for name in modules() if name.startswith("memory.") and room_of(name) == room]
    assert own
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    wrong = {
        f"{name} imports {imported}"
        for name in own
        for imported in imports()[name]
        if imported.startswith("memory.") and room_of(imported) not in allowed
    }
    assert not wrong


def floor_of_rerank(module: str) -> int:
    """Its place in RERANK_ROOMS; the rest of the app stands on top."""
    room = (module.split(".") + [""])[1]
    return next((floor for floor, names in enumerate(RERANK_ROOMS) if room in names), len(RERANK_ROOMS))


def test_a_room_of_rerank_imports_only_rooms_below_it() -> None:
    own = [name for name in modules() if name.startswith("rerank.")]
    assert {floor_of_rerank(name) for name in own} == set(range(len(RERANK_ROOMS) + 1))
    wrong = {
        f"{name} imports {imported}"
        for name in own
        for imported in imports()[name]
        if imported.startswith("rerank.") and floor_of_rerank(imported) > floor_of_rerank(name)
    }
    assert not wrong


def test_every_module_of_memory_has_a_room() -> None:
    homeless = [name for name in modules() if name.startswith("memory.") and room_of(name) not in ROOMS]
    assert not homeless


def test_no_file_imports_itself_in_a_circle() -> None:
    assert not list(circles(imports()))


def circles(graph: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """The paths that come back to where they began, one for each edge that closes one."""
    finished: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> Iterator[list[str]]:
        if name in path:
            yield [*path[path.index(name) :], name]
        elif name not in finished:
            path.append(name)
            for each in sorted(graph.get(name, ())):
                yield from visit(each)
            finished.add(path.pop())

    for name in sorted(graph):
        yield from visit(name)


def test_a_circle_is_found() -> None:
    assert list(circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})) == [["a", "b", "c", "a"]]


def test_the_root_of_memory_stays_small() -> None:
    at_the_root = {path.stem for path in (ROOT / "memory").glob("*.py")} - {"__init__"}
    assert len(at_the_root) <= MOST_ROOT_MODULES, sorted(at_the_root)


def test_every_room_says_what_lives_there() -> None:
    packages = [name for name, path in modules().items() if path.name == "__init__.py" and "management" not in name]
    silent = [name for name in packages if not ast.get_docstring(ast.parse(modules()[name].read_text()))]
    assert not silent
