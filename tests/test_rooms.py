"""The floor plan: imports go down only, between apps, between the rooms of `memory`, and between files.

A room is an app, a package inside `memory`, or a module at its root. `security` and `rls` stand at the root because the
specification has them there; `security` belongs to `sealing`, and `rls`, the door itself, is a room above `tenancy`.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.floor_plan import APPS, MAY_IMPORT, MOST_ROOT_MODULES, RERANK_ROOMS, ROOMS, ROOT, imports, modules, room_of

TESTS = sorted((ROOT / "tests").rglob("*.py"))


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


def test_nothing_is_imported_from_a_test_module() -> None:
    """What two test modules share lives in factories or in a module of helpers, where nothing is collected twice."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in TESTS
        for name in _imported_names(path)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    ]
    assert not wrong


def _imported_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_test_can_run() -> None:
    """None behind a `return`, and none inside another function, where pytest collects nothing."""
    wrong = [f"{path.relative_to(ROOT)}: {name}" for path in TESTS for name in never_run(ast.parse(path.read_text()))]
    assert not wrong


def never_run(tree: ast.AST) -> Iterator[str]:
    """Tests within functions, and statements behind one that leaves its block."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [each for each in ast.walk(node) if each is not node]
            yield from (each.name for each in inner if getattr(each, "name", None) and _is_test(each))
        for block in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            leaves = (
                [isinstance(each, ast.Return | ast.Raise | ast.Continue | ast.Break) for each in block or ()]
                if isinstance(block, list)
                else []
            )
            if True in leaves[:-1]:
                yield f"line {block[leaves.index(True) + 1].lineno}"


def _is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")


def test_a_test_behind_a_return_or_in_a_function_is_found() -> None:
    source = "def test_a():\n    def test_b(): ...\n    return\n    assert False\n"
    assert list(never_run(ast.parse(source))) == ["test_b", "line 4"]
