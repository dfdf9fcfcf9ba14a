"""Generates keys, and writes them to an env file."""

import base64
import os
import secrets
import tempfile
from pathlib import Path

from django.conf import settings

from keys.keyring import (
    ENCRYPTION_KEY,
    ENCRYPTION_KEYS_ACCEPTED,
    HMAC_KEY,
    HMAC_KEYS_ACCEPTED,
    KEY_BYTES,
    get_keyring,
    parse_key,
)
from keys.models import Purpose

VARIABLES = {
    Purpose.ENCRYPTION: (ENCRYPTION_KEY, ENCRYPTION_KEYS_ACCEPTED),
    Purpose.HMAC: (HMAC_KEY, HMAC_KEYS_ACCEPTED),
}
COMMANDS = {Purpose.ENCRYPTION: "rotate_encryption_key", Purpose.HMAC: "rotate_hmac_key"}


def generate_key() -> str:
    """Base64 of 32 bytes from the operating system's generator."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode("ascii")


def fresh_variables() -> dict[str, str]:
    """A first set of variables: both keys and Django's own secret."""
    return {
        ENCRYPTION_KEY: generate_key(),
        HMAC_KEY: generate_key(),
        "SECRET_KEY": secrets.token_urlsafe(50),
    }


def next_rotation(purpose: Purpose) -> str:
    """The env lines of the next rotation, in three steps: accept a new key, make it the current one, drop the old one.

    Raises KeyConfigurationError when the present key cannot be used.
    """
    current_name, accepted_name = VARIABLES[purpose]
    keyring = get_keyring()
    present = keyring.sealing if purpose == Purpose.ENCRYPTION else keyring.hmac_current
    current, accepted = getattr(settings, current_name), list(getattr(settings, accepted_name))
    coming = generate_key()
    coming_id = parse_key(coming).key_id
    return (
        f"# 1. Give every process the coming key {coming_id} to read with, and restart them:\n"
        f"{accepted_name}={','.join([*accepted, coming])}\n"
        f"# 2. When `manage.py key_status` says that it is safe, write with it, and restart them again:\n"
        f"{current_name}={coming}\n"
        f"{accepted_name}={','.join([*accepted, current])}\n"
        f"# 3. Run `manage.py {COMMANDS[purpose]}`. When it says that {present.key_id} may be removed:\n"
        f"{accepted_name}={','.join(accepted)}\n"
    )


def env_lines(variables: dict[str, str]) -> str:
    """The variables as an env file has them, one a line."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def write_env_file(path: Path, variables: dict[str, str], *, force: bool = False) -> None:
    """Put the variables into an env file with mode 0600, whole or not at all.

    Other lines of an existing file stay. Raises FileExistsError when one of the variables is already there and `force`
    is not given: rows sealed under an overwritten key would never open again.
    """
    kept = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    clashes = sorted({name for line in kept if (name := _name(line)) in variables})
    if clashes and not force:
        raise FileExistsError(f"{path} already sets {', '.join(clashes)}")
    others = "".join(line if line.endswith("\n") else f"{line}\n" for line in kept if _name(line) not in variables)
    _replace(path, others + env_lines(variables))


def _name(line: str) -> str:
    return line.split("=", 1)[0].removeprefix("export ").strip()


def _replace(path: Path, content: str) -> None:
    # mkstemp creates with 0600, so the keys are never readable by others, not even for a moment.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
