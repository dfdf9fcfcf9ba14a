"""`generate_keys --next`: the lines of the coming rotation."""

from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import override_settings

from keys.generation import generate_key
from keys.keyring import get_keyring


def lines(*arguments: str) -> list[tuple[str, str]]:
    out = StringIO()
    call_command("generate_keys", "--next", *arguments, stdout=out)
    return [tuple(line.split("=", 1)) for line in out.getvalue().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(("arguments", "name"), [((), "MEMORY_ENCRYPTION_KEY"), (("hmac",), "MEMORY_TENANT_HMAC_KEY")])
def test_the_lines_lead_through_read_write_remove(arguments: tuple[str, ...], name: str) -> None:
    kept = generate_key()
    with override_settings(**{f"{name}S_ACCEPTED": [kept]}):
        present = getattr(settings, name)
        first, current, second, last = lines(*arguments)
        coming = first[1].split(",")[1]
        assert first == (f"{name}S_ACCEPTED", f"{kept},{coming}")
        assert current == (name, coming)
        assert second == (f"{name}S_ACCEPTED", f"{kept},{present}")
        assert last == (f"{name}S_ACCEPTED", kept)
    # What is printed is a working environment.
    with override_settings(**{name: coming, f"{name}S_ACCEPTED": second[1].split(",")}):
        get_keyring()


def test_every_call_makes_another_key() -> None:
    assert lines() != lines()


def test_it_writes_no_file(tmp_path) -> None:
    with pytest.raises(CommandError, match="three restarts"):
        call_command("generate_keys", "--next", "--env-file", str(tmp_path / ".env"))
    assert not list(tmp_path.iterdir())
