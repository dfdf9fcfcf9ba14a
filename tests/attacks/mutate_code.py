"""Mutates a module of the product, one change at a time, and says which changes no test notices.

    python -m tests.attacks.mutate_code memory/security.py tests/memory/test_encryption.py tests/attacks/test_blobs.py

In a copy of the checkout. The runs share one Postgres and its test database, and each begins in a child of a process
that has the packages of others loaded, which is most of what a run of few tests takes. They run once more without any
change at the end, so that nothing that a mutant left behind has killed the others. Not run by the suite. `--from` and
`--to` do a part of the mutants. Exit code 1 when under 90% are killed.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARE = 0.9
SECONDS = 300
OURS = {"database", "inference", "keys", "memory", "project", "rerank", "tests", "__main__"}
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
    """Whether all tests pass with a module's source; they run in a child of ours."""
    (copy_of / module).write_text(source)
    child = os.fork()
    if not child:
        os.setsid()
        signal.alarm(SECONDS)
        os._exit(_run_tests(copy_of, tests))
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # servers that a test had no time to stop
    return os.waitstatus_to_exitcode(status) == 0


def _run_tests(copy_of: Path, tests: list[str]) -> int:
    import pytest

    for name in [each for each in sys.modules if each.partition(".")[0] in OURS - {"__main__"}]:
        del sys.modules[name]  # of the checkout itself
    os.chdir(copy_of)
    sys.path.insert(0, str(copy_of))
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    sys.dont_write_bytecode = True
    return int(pytest.main(["-q", "-x", "--no-cov", "-p", "no:cacheprovider", "--reuse-db", *tests]))


def load_packages_of_others(copy_of: Path, tests: list[str]) -> None:
    """Import what the tests import that is not ours, but for what needs settings."""
    listing = "import sys, pytest; pytest.main(sys.argv[1:]); print('\\n' + ' '.join(sys.modules))"
    command = [sys.executable, "-c", listing, "-q", "--co", "--no-cov", "-p", "no:cacheprovider", *tests]
    said = subprocess.run(command, cwd=copy_of, capture_output=True, text=True, check=True).stdout
    for name in said.splitlines()[-1].split():
        if name.partition(".")[0] not in OURS:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def copied(folder: Path) -> Path:
    """The files of the checkout that git knows, in a folder of their own."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="first", type=int, default=1, help="number of the first mutant (default: 1)")
    parser.add_argument("--to", dest="last", type=int, help="number of the last one (default: all)")
    parser.add_argument("module")
    parser.add_argument("tests", nargs=argparse.REMAINDER, help="arguments of pytest")
    options = parser.parse_args()
    source = (ROOT / options.module).read_text()
    unchanged = ast.unparse(ast.parse(source))
    made_mutants = list(mutants(source))[options.first - 1 : options.last]
    with one_cluster() as made:
        folder = copied(made / "checkout")
        load_packages_of_others(folder, options.tests)
        if not survives(folder, options.module, unchanged, options.tests):
            sys.exit("The tests fail without any change.")
        survivors = []
        for number, (said, mutated) in enumerate(made_mutants, options.first):
            if survives(folder, options.module, mutated, options.tests):
                survivors.append(said)
                sys.stdout.write(f"SURVIVES {number}: {said}\n")
                sys.stdout.flush()
            sys.stderr.write(f"\r{number}")
        if not survives(folder, options.module, unchanged, options.tests):
            sys.exit("The tests fail without any change by now: a mutant left something behind.")
    killed = len(made_mutants) - len(survivors)
    sys.stdout.write(f"{options.module}: {killed} of {len(made_mutants)} killed ({killed / len(made_mutants):.0%})\n")
    return int(killed < SHARE * len(made_mutants))


@contextlib.contextmanager
def one_cluster() -> Iterator[Path]:
    """A folder, with a Postgres in it that every run of tests uses (TEST_CLUSTER_DIR)."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o711)  # the server may have an account of its own
        cluster = str(Path(made) / "cluster")
        os.environ["TEST_CLUSTER_DIR"] = cluster
        try:
            yield Path(made)
        finally:
            from database import embedded_postgres

            with contextlib.suppress(Exception):
                embedded_postgres.destroy(cluster)


if __name__ == "__main__":
    sys.exit(main())
