"""Mutates a module of the product, one change at a time, and says which changes no test notices.

    python -m tests.attacks.mutate_code memory/security.py tests/memory/test_encryption.py tests/attacks/test_blobs.py

In a copy of the checkout, with the tests run as they always are: they start Postgres and servers of their own. Not run
by the suite: a mutant takes as long as its tests. Exit code 1 when under 90% are killed.
"""

import argparse
import ast
import copy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARE = 0.9
SECONDS = 300
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(what was changed, the changed source) for every single change."""
    tree = ast.parse(source)
    silent = set(said_only(tree))
    for number, node in enumerate(ast.walk(tree)):
        for change in range(0 if id(node) in silent else changes(node)):
            mutated = copy.deepcopy(tree)
            said = apply(list(ast.walk(mutated))[number], change)
            yield f"line {getattr(node, 'lineno', '?')}: {said}", ast.unparse(ast.fix_missing_locations(mutated))


def said_only(tree: ast.AST) -> Iterator[int]:
    """Docstrings and annotations, which nothing runs, and the words of errors, which nothing decides by."""
    for node in ast.walk(tree):
        parts = [getattr(node, name, None) for name in ("annotation", "returns")]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            parts.append(node)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            parts += node.exc.args
        yield from (id(inner) for part in parts if part for inner in ast.walk(part))


def changes(node: ast.AST) -> int:
    """In how many ways a node is changed."""
    match node:
        case ast.Compare() | ast.BoolOp() | ast.BinOp() | ast.UnaryOp(op=ast.Not()):
            return 1
        case ast.Constant(value=int() | float() | str() | bytes()) | ast.Return(value=ast.expr()):
            return 1
        case ast.If() | ast.IfExp() | ast.While():
            return 2
        case ast.Raise() | ast.Continue() | ast.Expr(value=ast.Call()):
            return 1
    return 0


def apply(node: ast.AST, change: int) -> str:
    """Change a node in place; returns what was done."""
    before = short(node)
    match node:
        case ast.Compare():
            node.ops[0] = SWAPS[type(node.ops[0])]()  # type: ignore[assignment]
        case ast.BoolOp() | ast.BinOp() if type(node.op) in SWAPS:
            node.op = SWAPS[type(node.op)]()  # type: ignore[assignment]
        case ast.BinOp():
            node.op = ast.Sub()
        case ast.UnaryOp():
            node.op = ast.UAdd()  # of a truth value: 1 for True
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant(value=int() | float()):
            node.value = node.value + 1
        case ast.Constant(value=str()):
            node.value = f"{node.value}X"
        case ast.Constant(value=bytes()):
            node.value = node.value + b"X"
        case ast.Return():
            node.value = ast.Constant(None)
        case ast.If() | ast.IfExp() | ast.While():
            node.test = ast.Constant(bool(change))
        case ast.Raise() | ast.Continue() | ast.Expr():
            node.__class__ = ast.Pass
            node.__dict__ = {}
    return f"{before}  →  {short(node)}"


def short(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())[:80]


def survives(copy_of: Path, module: str, source: str, tests: list[str]) -> bool:
    (copy_of / module).write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        return subprocess.run(command, cwd=copy_of, capture_output=True, timeout=SECONDS, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def copied(folder: Path) -> Path:
    """The files of the checkout that git knows, in a folder of their own."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module")
    parser.add_argument("tests", nargs=argparse.REMAINDER, help="arguments of pytest")
    options = parser.parse_args()
    source = (ROOT / options.module).read_text()
    with tempfile.TemporaryDirectory() as made:
        folder = copied(Path(made))
        if not survives(folder, options.module, ast.unparse(ast.parse(source)), options.tests):
            sys.exit("The tests fail without any change.")
        made_mutants = list(mutants(source))
        survivors = []
        for number, (said, mutated) in enumerate(made_mutants, 1):
            if survives(folder, options.module, mutated, options.tests):
                survivors.append(said)
                sys.stdout.write(f"SURVIVES {said}\n")
            sys.stderr.write(f"\r{number}/{len(made_mutants)}")
    killed = len(made_mutants) - len(survivors)
    sys.stdout.write(f"{options.module}: {killed} of {len(made_mutants)} killed ({killed / len(made_mutants):.0%})\n")
    return int(killed < SHARE * len(made_mutants))


if __name__ == "__main__":
    sys.exit(main())
