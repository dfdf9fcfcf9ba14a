"""Writing through PgBouncer with one server connection, and a pool of one: a second connection would wait for ever."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connections
from psycopg.conninfo import make_conninfo

from keys.keyring import get_keyring
from keys.models import KeyRecord
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from tests.children import child_environment
from tests.pgbouncer import PGBOUNCER, running_pgbouncer

ROOT = Path(__file__).resolve().parents[2]
FIRST_WRITE = """
import django
django.setup()
from tests.factories import remember
remember("person:1", "doc", "text")
"""

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed."),
]


@pytest.fixture
def through(make_reachable: Callable[[], Path]) -> Iterator[dict[str, str]]:
    """Connection parameters of the application's role through PgBouncer."""
    with running_pgbouncer(make_reachable()) as parameters:
        yield parameters


def test_the_first_write_of_a_process_needs_one_server_connection(through: dict[str, str]) -> None:
    connections["default"].close()
    environment = {**child_environment(), "DATABASE_URL": make_conninfo(**through), "DATABASE_POOL_MAX_SIZE": "1"}
    environment["DATABASE_PREPARED_STATEMENTS"] = "false"  # for PgBouncer before 1.22
    # A write that asks for a second connection gets an error after PgBouncer's query_wait_timeout, or waits for ever.
    script = [sys.executable, "-c", FIRST_WRITE]
    done = subprocess.run(script, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "not counted" in done.stderr) == (0, False), done.stderr
    with tenant_transaction("person:1"):
        assert MemoryChunk.objects.count() == 1
    assert KeyRecord.objects.get(key_id=get_keyring().sealing.key_id).seals > 0
