"""What schemathesis finds when it calls every operation as the OpenAPI document describes it, and as it does not.

A short run that is the same every time. SCHEMATHESIS_EXAMPLES=1000 makes a long one, of all phases for both tokens.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memory.access.identity import USER_HEADER
from tests.factories import make_service, make_token, make_user

SHORT = "5"
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", SHORT)
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
CREDENTIALS = {
    "person": lambda: {"Authorization": f"Bearer {make_token(make_user())}"},
    "service": lambda: {"Authorization": f"Bearer {make_service()}", USER_HEADER: "alice"},
    # At mem0's door a service names its user in the call, not in the header.
    "mem0": lambda: {"Authorization": f"Token {make_service()}"},
}
MEM0 = "^/api/mem0/"


PHASES = {"person": "coverage", "service": "fuzzing,stateful", "mem0": "fuzzing"}
PATHS = {
    "person": [],
    "service": [f"--exclude-path-regex={MEM0}"],
    "mem0": [f"--include-path-regex={MEM0}"],
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", CREDENTIALS)
def test_the_api_does_what_its_description_says(kind: str, live_server: Any, settings: Any, tmp_path: Path) -> None:
    settings.MEMORY_THROTTLE_INDEX = settings.MEMORY_THROTTLE_QUERY = settings.MEMORY_THROTTLE_OTHER = ""
    headers = [f"--header={name}: {value}" for name, value in CREDENTIALS[kind]().items()]
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        f"--config-file={CONFIGURATION}",
        "run",
        f"{live_server.url}/api/v1/schema/",
        *headers,
        *PATHS[kind],
        f"--max-examples={EXAMPLES}",
        "--generation-deterministic",
        f"--phases={PHASES[kind] if EXAMPLES == SHORT else 'examples,coverage,fuzzing,stateful'}",
        "--no-color",
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)  # noqa: S603
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
