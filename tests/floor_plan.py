"""The floor plan: which apps and rooms there are, what each may import, and what every module does import."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

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
    "operations",
    "api",
    "benchmarks",
    "training",
    "shell",
)
RERANK_ROOMS = ({"outcomes", "ordering", "metrics", "latency"}, {"weights"}, {"backends"})
ROOM_OF_MODULE = {
    **dict.fromkeys(("exceptions", "metrics", "security", "tracing"), "sealing"),
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
