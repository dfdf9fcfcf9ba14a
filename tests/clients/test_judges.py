"""Runs the suites by which others judge our integrations, against the real service.

`make judges` installs them into an environment of their own, `.venv-judges`, which .ci/run does before the tests.
"""

import os
import subprocess
from typing import Any

import pytest

from tests.clients.judges import JUDGES, PYTHON, needs_judges
from tests.factories import make_service, make_token, make_user


@needs_judges
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("judge", sorted(path.name for path in JUDGES.glob("test_*.py")))
def test_a_judge_finds_nothing(judge: str, live_server: Any, settings: Any) -> None:
    settings.MEMORY_FILTERABLE_METADATA = [*settings.MEMORY_FILTERABLE_METADATA, "colour"]
    service = {
        "SEALED_MEMORY_URL": live_server.url,
        "SEALED_MEMORY_TOKEN": make_token(make_user()),
        "SEALED_MEMORY_SERVICE_TOKEN": make_service(),
    }
    # Nothing of this environment's own: only where the service is.
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **service}
    command = [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rsx", judge]
    done = subprocess.run(command, cwd=JUDGES, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert "skipped" not in done.stdout and "xfailed" not in done.stdout, done.stdout[-4_000:]
