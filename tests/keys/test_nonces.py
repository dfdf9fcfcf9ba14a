"""The seals of a process, counted in memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keys import nonces
from keys.exceptions import NonceBudgetSpent
from keys.keyring import get_keyring
from memory.security import open_sealed, seal
from tests.children import key_environment

KEY = "0badf00d"
ROOT = Path(__file__).resolve().parents[2]
LONE_SCRIPT = """
import sys
from django.conf import settings
settings.SECRET_KEY  # the settings read connection parameters with psycopg's own parser
before = set(sys.modules)
from memory.security import open_sealed, seal
assert open_sealed(seal(b"x")) == b"x"
for _ in range(70_000):
    seal(b"x")
new = set(sys.modules) - before
print([name for name in new if name.startswith(("psycopg", "database", "django.db"))])
"""


def made(key_id: str = KEY) -> int:
    return nonces.claim(key_id) - nonces.AHEAD


def test_every_seal_is_counted() -> None:
    for _ in range(3):
        assert open_sealed(seal(b"text")) == b"text"
    assert made(get_keyring().sealing.key_id) == 3


def test_a_lone_script_seals_without_a_database(tmp_path: Path) -> None:
    """No server is reachable, and none is made: 65,536 seals and more, and not a file."""
    environment = {**os.environ, **key_environment(), "EMBEDDED_POSTGRES_DIR": str(tmp_path / "cluster")}
    environment |= {"DJANGO_SETTINGS_MODULE": "project.settings", "HOME": str(tmp_path), "DATABASE_URL": ""}
    script = [sys.executable, "-c", LONE_SCRIPT]
    done = subprocess.run(script, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip(), list(tmp_path.iterdir())) == ("[]", [])


def test_a_claim_is_told_once_and_a_failed_one_again() -> None:
    nonces.spend(KEY)
    assert nonces.keys_used(due=True) == [KEY]
    assert nonces.claim(KEY) == 1 + nonces.AHEAD
    assert (nonces.keys_used(due=True), nonces.claim(KEY)) == ([], 0)
    nonces.unclaim(KEY, 1 + nonces.AHEAD)
    assert (nonces.keys_used(due=True), nonces.claim(KEY)) == ([KEY], 1 + nonces.AHEAD)


def test_the_next_claim_is_due_when_half_of_what_was_told_ahead_is_used() -> None:
    nonces.open_account(KEY)
    nonces.claim(KEY)
    for _ in range(nonces.AHEAD // 2):
        nonces.spend(KEY)
    assert nonces.keys_used(due=True) == []
    nonces.spend(KEY)
    assert nonces.keys_used(due=True) == [KEY]


def test_a_refused_key_seals_no_more_and_names_the_command() -> None:
    nonces.spend(KEY)
    nonces.refuse(KEY)
    for _ in range(2):
        with pytest.raises(NonceBudgetSpent, match=f"{KEY}.*rotate_encryption_key"):
            nonces.spend(KEY)
    assert made() == 1


def test_a_process_alone_cannot_use_a_key_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces, "REFUSE_AT", 2)
    nonces.spend(KEY)
    nonces.spend(KEY)
    with pytest.raises(NonceBudgetSpent):
        nonces.spend(KEY)


def test_a_forked_child_tells_its_own_seals_and_still_refuses() -> None:
    nonces.spend(KEY)
    nonces.spend("00000001")
    nonces.refuse("00000001")
    child = os.fork()
    if child == 0:
        os._exit(0 if _as_a_child() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert made() == 1


def _as_a_child() -> bool:
    try:
        nonces.spend(KEY)
        nonces.spend(KEY)
        nonces.spend("00000001")
    except NonceBudgetSpent:
        return made() == 2
    return False
