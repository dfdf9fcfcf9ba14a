"""The shell blocks of docs/howto/ do what the pages say: each is run, in the order of PAGES, by bash.

What a page's fences mean:
    ```sh         commands
    ```console    commands after `$ `, and what they print; where that has an error in it, the command must fail
    anything else (text, ini, sql, yaml, …) is not for a shell
Two comments, on the line before a fence or by themselves:
    <!-- not run: REASON -->      the next block is left out
    <!-- the reader: COMMAND -->  what a person does between two blocks, for example with a key that was printed; the
                                  output of the last command is in the file `last`
`manage.py` is ours, and `db.example.org` a Postgres that knows nothing of us.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bare_postgres import SUPERUSER, running_bare_postgres
from tests.settings import OURS

ROOT = Path(__file__).resolve().parent.parent.parent
HOWTO = ROOT / "docs" / "howto"
# A page goes on where the one before it ended: the same shell, database and keys.
PAGES = (
    "deploy", "identify-users", "backup", "upgrade", "rotate-keys", "scale-out", "ingest-a-lot", "gpu",
    "run-models-elsewhere", "agents", "mem0", "containers", "trace",
)  # fmt: skip
SHELLS = ("sh", "console")
APPS = ("project", "keys", "memory", "rerank")
EXAMPLE_SERVER = "db.example.org:5432/memory?sslmode=verify-full&sslrootcert=/etc/ssl/db-ca.pem"
# All pages together take about 45 s on two quiet cores.
SECONDS = 600


@dataclass(frozen=True)
class Block:
    """A fenced block, or the reader's part between two: where it stands, and why it is not run."""

    line: int
    language: str
    text: str
    not_run: str = ""

    @property
    def script(self) -> str:
        return "\n".join(_session(self.text)) if self.language == "console" else self.text


def blocks(page: str) -> Iterator[Block]:
    reason, fence, lines = "", None, []
    for number, line in enumerate((HOWTO / f"{page}.md").read_text().splitlines(), 1):
        stripped = line.strip()
        if fence is None and stripped.startswith("```"):
            fence, lines = (number, stripped[3:]), []
        elif fence is not None and stripped == "```":
            yield Block(*fence, "\n".join(lines), reason)
            fence, reason = None, ""
        elif fence is not None:
            lines.append(line)
        elif found := re.fullmatch(r"<!-- (not run|the reader): (.+) -->", stripped):
            if found[1] == "not run":
                reason = found[2]
            else:
                yield Block(number, "sh", found[2])


def _session(text: str) -> Iterator[str]:
    """Every command of a console block, its output kept in `last`."""
    for command, output in re.findall(r"^\$ (.+)\n?((?:(?!\$ ).*\n?)*)", text, re.M):
        fails = "! " if re.search("[Ee]rror: ", output) else ""
        yield f"{fails}{command} > last 2>&1 || {{ cat last; false; }}"


@pytest.fixture(scope="module")
def shell(make_reachable: Callable[[], Path]) -> Iterator[Callable[[str], subprocess.CompletedProcess[str]]]:
    """Runs a page's blocks in a folder of their own, where the page before left off."""
    folder = make_reachable()
    with running_bare_postgres(make_reachable()) as server:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | {
            "PATH": f"{server.programs}:{os.environ['PATH']}",
            "PGHOST": server.host,
            "PGUSER": SUPERUSER,
            "PGPASSWORD": SUPERUSER,
            "ENV_FILE": "",
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "DJANGO_SUPERUSER_PASSWORD": "only for this test",
            "EMBEDDED_POSTGRES_DIR": str(folder / "data"),
        }
        (folder / "before").write_text(f'manage.py() {{ "{sys.executable}" "{ROOT}/manage.py" "$@"; }}\n')

        def run(page: str) -> subprocess.CompletedProcess[str]:
            script = _script(page).replace(EXAMPLE_SERVER, f"/memory?host={server.host}")
            return subprocess.run(
                ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
            )

        yield run
        subprocess.run(
            ["bash", "-c", ". ./before; unset DATABASE_URL; manage.py embedded_postgres stop"],
            cwd=folder,
            env=environment,
            capture_output=True,
        )


def _script(page: str) -> str:
    parts = ["set -Eeuo pipefail", ". ./before", "trap 'echo \"failed in $here: $BASH_COMMAND\" >&2' ERR"]
    for block in blocks(page):
        if block.language in SHELLS and not block.not_run:
            parts += [f"here={page}.md:{block.line}", block.script]
    return "\n".join([*parts, "{ declare -px; declare -f manage.py; } > before"])


def test_every_page_is_listed() -> None:
    assert {path.stem for path in HOWTO.glob("*.md")} == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_commands_stand_in_fences_that_say_what_they_are(page: str) -> None:
    """A command in another kind of block would never be run."""
    text = (HOWTO / f"{page}.md").read_text()
    assert not re.findall(r"(?m)^\n {4}\S.*", re.sub(r"(?s)```.*?```", "", text)), "indented block"
    hidden = [block for block in blocks(page) if block.language not in SHELLS and "manage.py " in block.text]
    assert not hidden
    assert not [block for block in blocks(page) if not block.language]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_do_what_it_says(
    page: str, shell: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    done = shell(page)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_a_block_that_fails_is_noticed(
    shell: Callable[[str], subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "blocks", lambda page: [Block(7, "console", "$ manage.py no_such_command\n")])
    done = shell("some")
    assert done.returncode == 1
    assert "failed in some.md:7" in done.stderr
    assert "no_such_command" in done.stdout


def test_every_migration_says_what_it_locks() -> None:
    migrations = {f"{app} {path.stem}" for app in APPS for path in (ROOT / app / "migrations").glob("[0-9]*.py")} - {
        f"{app} 0001_initial" for app in APPS
    }
    upgrade = (HOWTO / "upgrade.md").read_text()
    assert not [name for name in sorted(migrations) if f"| `{name}` |" not in upgrade], "add a row to upgrade.md"


# --- Messages that a page explains ------------------------------------------------------------------------------------
def said() -> str:
    """Every string of the product's code, an f-string with its parts in one piece."""
    found = []
    for app in ("keys", "memory"):
        for path in (ROOT / app).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_the_messages_that_rotate_keys_explains_are_said() -> None:
    table = (HOWTO / "rotate-keys.md").read_text().split("| It says |", 1)[1]
    messages = re.findall(r"^\| `([^`]+)` \|", table, re.M)
    assert len(messages) >= 10
    parts = {part.strip() for message in messages for part in re.split(r"…|\bN\b", message) if len(part.strip()) > 6}
    code = said()
    assert not {part for part in parts if part not in code and part.removesuffix(" 'rotation'") not in code}
