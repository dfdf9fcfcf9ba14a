"""The same product on hash partitions."""

import io

import numpy as np
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from database.roles import as_owner
from memory.erasure import erase_user
from memory.exceptions import DatabaseMisconfigured
from memory.index import dry_run
from memory.index.tail import index_tail
from memory.models import MemoryChunk, Tenant
from memory.rls import tenant_transaction
from memory.search.exact_scan import PINS as EXACT_PINS
from memory.search.exact_scan import exact_scan
from memory.search.graph_search import PINS, nearest
from memory.tenancy.cursors import sending
from memory.tenancy.live_database import assert_live_database
from memory.tenancy.partitions import TABLES, NotPartitionable, partition, partitions
from memory.tenancy.planner_settings import planner_settings
from tests.factories import drawn_documents, store_drawn
from tests.memory.plans import planned, scans
from tests.memory.search.searches import asked, found, path_of

ALICE, BOB = "person:1", "person:2"

pytestmark = pytest.mark.django_db(transaction=True)


def migrate(*options):
    call_command("migrate", *options, verbosity=0, stdout=io.StringIO())


def owner_runs(sql):
    with as_owner() as owner, owner.cursor() as cursor:
        cursor.execute(sql)


def catalogue():
    """Everything about the three tables that partitioning must keep."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid::regclass::text = ANY (%s) AND conparentid = 0 AND contype <> 'n' ORDER BY 1, 2",
            [list(TABLES)],
        )
        constraints = cursor.fetchall()
        cursor.execute(
            "SELECT indexname, replace(indexdef, ' ON ONLY ', ' ON ') FROM pg_indexes WHERE tablename = ANY (%s)"
            " ORDER BY 1",
            [list(TABLES)],
        )
        indexes = cursor.fetchall()
        cursor.execute(
            "SELECT attrelid::regclass::text, attname, attstorage::text, attnotnull FROM pg_attribute"
            " WHERE attrelid::regclass::text = ANY (%s) AND attnum > 0 AND NOT attisdropped ORDER BY 1, 2",
            [list(TABLES)],
        )
        columns = cursor.fetchall()
        cursor.execute(
            "SELECT table_name, column_name FROM information_schema.column_privileges"
            " WHERE grantee = 'memory_census' AND table_name = ANY (%s) ORDER BY 1, 2",
            [list(TABLES)],
        )
        return constraints, indexes, columns, cursor.fetchall()


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def partitioned(transactional_db):
    migrate("--partitions", "4")
    yield
    for user in (ALICE, BOB):
        erase_user(user_id=user)
    migrate("--partitions", "0")


def test_there_and_back_keeps_everything(transactional_db):
    before = catalogue()
    migrate("--partitions", "3")
    with connection.cursor() as cursor:
        assert [len(partitions(cursor, table)) for table in TABLES] == [3, 3, 3]
    between = catalogue()
    migrate("--partitions", "0")
    assert between == before == catalogue()
    assert_live_database()


def test_partitions_have_storage_and_guards_of_their_own(partitioned):
    assert_live_database()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attstorage::text FROM pg_attribute WHERE attname = 'embedding'"
            " AND attrelid = 'memory_vectors_p0'::regclass"
        )
        assert cursor.fetchone() == ("p",)
        with pytest.raises(Exception, match="permission denied"):
            cursor.execute("SELECT count(*) FROM memory_vectors_p0")


def test_the_checks_of_a_probe_take_as_many_statements_however_many_partitions_there_are(transactional_db):
    counted = []
    for count in ("2", "32", "0"):
        migrate("--partitions", count)
        with CaptureQueriesContext(connection) as statements:
            assert_live_database()
        counted.append(len(statements))
    assert len(set(counted)) == 1


@pytest.mark.parametrize(
    "sabotage",
    ["ALTER TABLE memory_chunks_p1 DISABLE ROW LEVEL SECURITY", "GRANT SELECT ON memory_chunks_p2 TO memory_app"],
)
def test_a_partition_without_its_guard_is_refused(partitioned, sabotage):
    owner_runs(sabotage)
    with pytest.raises(DatabaseMisconfigured, match="memory_chunks_p"):
        assert_live_database()


def test_tenants_are_answered_alike_and_apart(partitioned, settings, rng):
    settings.MEMORY_EXACT_SCAN_MAX = 100
    documents, vector = drawn_documents(rng, [3] * 50), rng.normal(size=384)
    ids = store_drawn(ALICE, documents)
    exact = {c.id for c in found(ALICE, "", vector, limit=5)}
    index_tail(user_id=ALICE, limit=1000)
    assert path_of(ALICE, vector)[0] == "graph"
    assert {c.id for c in found(ALICE, "", vector, limit=5)} == exact <= set(ids)
    assert found(BOB, "apollo", vector) == []


def test_one_partition_is_read(partitioned, settings, rng):
    settings.MEMORY_EXACT_SCAN_MAX = 10
    store_drawn(ALICE, drawn_documents(rng, [1] * 60))
    index_tail(user_id=ALICE, limit=1000)
    with tenant_transaction(ALICE) as user_hash, sending() as send:
        ask = asked(user_hash, rng.normal(size=384))
        with planner_settings(send, EXACT_PINS):
            exact = scans(planned(send, exact_scan(ask)))
        with planner_settings(send, PINS):
            (graph,) = scans(planned(send, nearest(ask)))
    assert graph.startswith("Index Scan memory_vectors_p")
    for plan in (" ".join(exact), graph):
        assert len({f"memory_vectors_p{number}" for number in range(4) if f"memory_vectors_p{number}" in plan}) == 1


def test_tables_with_rows_are_left_alone(transactional_db, rng):
    store_drawn(ALICE, drawn_documents(rng, [2]))
    with pytest.raises(CommandError, match="holds rows"):
        migrate("--partitions", "2")
    assert_live_database()
    assert len(found(ALICE, "", np.ones(384))) == 2


def test_a_silly_number_is_refused(transactional_db):
    with as_owner() as owner, pytest.raises(NotPartitionable):
        partition(owner, 100_000)


def test_distribute_says_what_is_missing(transactional_db):
    out = io.StringIO()
    with pytest.raises(CommandError, match="preconditions are missing"):
        call_command("distribute", stdout=out)
    assert "MISSING the extension citus is on the server" in out.getvalue()
    for table in (*TABLES, "tenants"):
        assert f"ok      every key of {table} starts with user_hash" in out.getvalue()
        assert f"ok      no policy of {table} has a sub-select" in out.getvalue()


OWN_STATEMENTS = "the writers' own statements run as the application's role"


def test_distribute_runs_the_writers_own_statements_and_leaves_nothing(transactional_db):
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("distribute", stdout=out)
    assert f"ok      {OWN_STATEMENTS}" in out.getvalue()
    with tenant_transaction(dry_run.USER_ID):
        assert (Tenant.objects.count(), MemoryChunk.objects.count()) == (0, 0)


@pytest.mark.parametrize(
    ("right", "step"),
    [("INSERT ON memory_chunks", "inserting chunks and vectors"), ("UPDATE ON memory_vectors", "moving rows into")],
)
def test_distribute_names_the_statement_that_is_refused(transactional_db, right, step):
    owner_runs(f"REVOKE {right} FROM memory_app")
    try:
        out = io.StringIO()
        with pytest.raises(CommandError):
            call_command("distribute", stdout=out)
    finally:
        owner_runs(f"GRANT {right} TO memory_app")
    assert f"MISSING {OWN_STATEMENTS}" in out.getvalue()
    assert f"The database refuses {step}" in out.getvalue() and "permission denied" in out.getvalue()


def test_distribute_prints_the_tenants_first(transactional_db):
    out = io.StringIO()
    call_command("distribute", "--print-sql", stdout=out)
    first, second, *_ = [line for line in out.getvalue().splitlines() if "create_distributed_table" in line]
    assert first == "SELECT create_distributed_table('tenants', 'user_hash');"
    assert second == "SELECT create_distributed_table('memory_chunks', 'user_hash', colocate_with => 'tenants');"


def test_distribute_notices_partitions(partitioned):
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("distribute", stdout=out)
    assert "MISSING memory_chunks is not partitioned here" in out.getvalue()
