"""The Python in our pages does what it says: each block is run as it is printed, against the real service.

Only the address and the token are put in. What stands as a comment behind a `print` is what it must print.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.judges import PYTHON, ROOT
from tests.factories import make_service, make_token, make_user
from tests.serving import serving

HOWTO = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "howto").glob("*.md"))
PAGES = ("README.md", "clients/python/README.md", *HOWTO)
OF_JUDGES = ("langchain", "langgraph", "mem0")
ADDRESS, TOKEN = "http://127.0.0.1:8000", "smem_…"


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    text: str

    @property
    def interpreter(self) -> Path:
        needs_judges = re.search(rf"^(from|import) ({'|'.join(OF_JUDGES)})|sealed_memory\.lang", self.text, re.M)
        return PYTHON if needs_judges else Path(sys.executable)

    @property
    def token(self) -> str:
        # mem0's clients name the user of each call, as a service does.
        return make_service() if "/api/mem0" in self.text else make_token(make_user())

    @property
    def prints(self) -> list[str]:
        return re.findall(r"print\(.*\)  # (.*)$", self.text, re.M)


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = (ROOT / page).read_text()
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
            yield Block(page, text[: found.start()].count("\n") + 1, found[1])


@pytest.fixture(scope="module")
def address(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    with django_db_blocker.unblock(), serving() as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("block", list(blocks()), ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_prints_what_it_says(block: Block, address: str, tmp_path: Path) -> None:
    if not block.interpreter.exists():
        pytest.skip("no .venv-judges: run `make judges` first")
    assert ADDRESS in block.text and TOKEN in block.text
    script = block.text.replace(ADDRESS, address).replace(TOKEN, block.token)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "clients" / "python" / "src"),
        **{"MEM0_TELEMETRY": "False", "MEM0_DIR": str(tmp_path)},
    }
    done = subprocess.run(
        [block.interpreter, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    assert not block.prints or done.stdout.splitlines() == block.prints
