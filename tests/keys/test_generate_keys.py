"""`generate_keys`: keys that pass their own checks, in a file that only its owner reads."""

import os
import stat
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from keys import generation
from keys.keyring import parse_key

NAMES = ["MEMORY_ENCRYPTION_KEY", "MEMORY_TENANT_HMAC_KEY", "SECRET_KEY"]


def generate(*arguments: str) -> str:
    out = StringIO()
    call_command("generate_keys", *arguments, stdout=out)
    return out.getvalue()


def variables(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_prints_env_lines_that_pass_the_checks(settings: Any) -> None:
    found = variables(generate())
    assert list(found) == NAMES
    assert parse_key(found[NAMES[0]]) != parse_key(found[NAMES[1]])
    assert found != variables(generate())


def test_writes_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    before = os.umask(0)
    try:
        said = generate("--env-file", str(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(variables(path.read_text())) == NAMES
    assert not any(value in said for value in variables(path.read_text()).values())


def test_refuses_to_overwrite_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    generate("--env-file", str(path))
    before = path.read_text()
    with pytest.raises(CommandError, match="already sets MEMORY_ENCRYPTION_KEY.*--force") as caught:
        generate("--env-file", str(path))
    assert path.read_text() == before
    assert not any(value in str(caught.value) for value in variables(before).values())


def test_force_replaces_the_keys_and_keeps_the_other_lines(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# mine\nDEBUG=1\nexport MEMORY_ENCRYPTION_KEY=old\nLAST=1")
    generate("--env-file", str(path), "--force")
    text = path.read_text()
    assert text.startswith("# mine\nDEBUG=1\nLAST=1\n") and "=old" not in text
    assert set(variables(text)) == {*NAMES, "DEBUG", "LAST"}


def test_a_file_without_keys_gets_them(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("DEBUG=1\n")
    generate("--env-file", str(path))
    assert set(variables(path.read_text())) == {*NAMES, "DEBUG"}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="Cannot write"):
        generate("--env-file", str(tmp_path / "no" / ".env"))


def test_a_failed_write_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generation.os, "replace", fail)
    with pytest.raises(CommandError, match="No space left"):
        generate("--env-file", str(tmp_path / ".env"))
    assert list(tmp_path.iterdir()) == []
