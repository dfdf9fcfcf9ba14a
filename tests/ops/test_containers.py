"""compose.yaml's steps, done without containers: what prepare.sh makes is enough for a Postgres of one's own."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.bare_postgres import SUPERUSER, running_bare_postgres
from tests.settings import OURS

ROOT = Path(__file__).resolve().parent.parent.parent
PREPARE, WITH_ENV = ROOT / "ops" / "container" / "prepare.sh", ROOT / "ops" / "container" / "with-env.sh"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {"DJANGO_SETTINGS_MODULE": "project.settings", "ENV_FILE": "", "PATH": path}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**inherited, **settings, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_what_is_prepared_once_serves(make_reachable: Callable[[], Path]) -> None:
    secrets = make_reachable()
    with running_bare_postgres(make_reachable()) as server:
        here = f"/memory?host={server.host}&application_name=compose"
        run("sh", PREPARE, secrets, here, SECRET_KEY="only-to-print-sql")
        made = {path.name: path.read_text() for path in secrets.iterdir()}
        run("sh", PREPARE, secrets, here, SECRET_KEY="only-to-print-sql")
        assert {path.name: path.read_text() for path in secrets.iterdir()} == made, "made anew: keys would be lost"
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in secrets.iterdir())
        assert "memory_owner" not in made["service.env"]

        postgres = {"PGHOST": str(server.host), "PGUSER": SUPERUSER, "PGPASSWORD": SUPERUSER}
        programs = f"{server.programs}:{os.environ['PATH']}"
        command = f"set -a; . {secrets}/passwords.env; psql --no-psqlrc --quiet --file={secrets}/setup.sql postgres"
        run("sh", "-c", command, **postgres, PATH=programs)
        service, owner = secrets / "service.env", secrets / "owner.env"
        run("sh", WITH_ENV, service, owner, "--", "python", "manage.py", "migrate", "--verbosity", "0")
        run("sh", WITH_ENV, service, "--", "python", "manage.py", "check", "--database", "default")


def test_the_commands_of_compose_are_those_tested_here() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert "sh ops/container/prepare.sh /secrets" in services["prepare"]["command"][2]
    assert services["migrate"]["command"][:4] == [
        "sh",
        "ops/container/with-env.sh",
        "/secrets/service.env",
        "/secrets/owner.env",
    ]
    assert "/secrets/owner.env" not in services["memory"]["command"]


def test_the_service_runs_without_rights() -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["memory"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["ports"] == ["${PUBLISH:-127.0.0.1:8000}:8000"]
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert lines.index("USER memory") < next(n for n, line in enumerate(lines) if line.startswith("CMD"))


def test_the_image_copies_every_app() -> None:
    copied = {line.split()[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")}
    apps = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert apps <= copied
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {part.split("/")[0] for part in copied if not part.startswith("--")} <= allowed


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("unit", sorted(path.name for path in (ROOT / "ops" / "systemd").iterdir()))
def test_systemd_takes_the_units(unit: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", ROOT / "ops" / "systemd" / unit], capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if "is not executable: No such file" not in line]
    assert not said
