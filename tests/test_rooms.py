"""Imports run one way: memory → keys, memory → rerank; project wires."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "keys": {"keys"},
    "rerank": {"rerank"},
    "memory": {"memory", "keys", "rerank"},
    "project": {"project", "memory", "keys", "rerank"},
}


def imports(path: Path) -> Iterator[str]:
    """The first part of every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    others = set(MAY_IMPORT) | {"tests"}
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if name in others - MAY_IMPORT[room]
    }
    assert not wrong
