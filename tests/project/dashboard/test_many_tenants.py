"""The pages with no tenant, one, and a hundred thousand: as many statements, and no time to speak of."""

import time
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from database.roles import as_owner
from keys import heartbeat
from keys.models import KeyTally, Lease
from project.dashboard import hours, levels
from project.dashboard.recorder import Recorder
from tests.factories import make_user
from tests.project.dashboard.seeding import seed_hours

pytestmark = pytest.mark.django_db(transaction=True)
PAGES = {"first": "/admin/", "month": "/admin/?days=30", "tenants": "/admin/memory/tenants/",
         "found": "/admin/memory/tenants/?q=ab", "keys": "/admin/keys/keyrecord/"}  # fmt: skip
SECONDS = 10.0  # on a machine that does much else besides
# Plain rows, in a throw-away database alone: the owner lifts its own policy for one transaction.
SEED = """
INSERT INTO tenants (user_hash, user_cipher, enc_key_id, hmac_key_id, chunk_count)
SELECT encode(sha256(number::text::bytea), 'hex'), decode(repeat('00', 40), 'hex'), 'aaaaaaaa', 'bbbbbbbb',
       number %% 1000
FROM generate_series(1, %s) AS number ON CONFLICT DO NOTHING
"""


def seed_tenants(count: int) -> None:
    with as_owner() as owner, owner.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY")
        cursor.execute(SEED, [count])
        cursor.execute("ALTER TABLE tenants FORCE ROW LEVEL SECURITY")
        cursor.execute("COMMIT")
        cursor.execute("ANALYZE tenants")


def look(client: Client, path: str) -> tuple[int, float]:
    """How many statements a page takes, and how many seconds."""
    client.get(path)
    with CaptureQueriesContext(connection) as asked:
        began = time.perf_counter()
        assert client.get(path).status_code == 200
        return len(asked), time.perf_counter() - began


def test_the_pages_hold_up() -> None:
    client = Client()
    root: Any = make_user("root", is_staff=True, is_superuser=True)
    client.force_login(root, backend="django.contrib.auth.backends.ModelBackend")
    heartbeat.beat("wsgi")
    seed_hours()
    statements: dict[int, list[int]] = {}
    for count in (0, 1, 100_000):
        seed_tenants(count)
        Lease.objects.all().delete()  # so that it is sampled anew
        KeyTally.objects.all().delete()
        Recorder().record()
        taken = {name: look(client, path) for name, path in PAGES.items()}
        print(count, {name: f"{asked} statements, {1000 * seconds:.0f} ms" for name, (asked, seconds) in taken.items()})
        statements[count] = [asked for asked, _ in taken.values()]
        assert max(seconds for _, seconds in taken.values()) < SECONDS
    assert statements[0] == statements[1] == statements[100_000]
    assert hours.last_levels()[levels.TENANT_COUNT] == 100_000
