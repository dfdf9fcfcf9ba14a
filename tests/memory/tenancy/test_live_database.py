"""What `assert_live_database()` refuses. Each sabotage is one that would let a tenant out, or a role in."""

from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection

from database.roles import as_owner
from memory.exceptions import DatabaseMisconfigured
from memory.rls import tenant_transaction
from memory.tenancy.live_database import assert_live_database, tenant_tables
from tests.factories import ALICE, BOB, recall, remember, texts

REPAIR = """
    ALTER TABLE memory_chunks ENABLE ROW LEVEL SECURITY;
    ALTER TABLE memory_chunks FORCE ROW LEVEL SECURITY;
    DROP POLICY IF EXISTS tenant_isolation ON memory_chunks;
    DROP POLICY IF EXISTS open_to_all ON memory_chunks;
    CREATE POLICY tenant_isolation ON memory_chunks TO memory_app
        USING (user_hash = nullif(current_setting('app.user_hash', true), ''))
        WITH CHECK (user_hash = nullif(current_setting('app.user_hash', true), ''));
    REVOKE TRUNCATE, REFERENCES ON memory_chunks FROM memory_app;
"""
LEAKS = {
    "ALTER TABLE memory_chunks DISABLE ROW LEVEL SECURITY": "is off on memory_chunks",
    "CREATE POLICY open_to_all ON memory_chunks TO memory_app USING (true)": "open_to_all",
}
SABOTAGE = LEAKS | {
    "CREATE POLICY open_to_all ON memory_chunks TO memory_app"
    " USING (user_hash <> nullif(current_setting('app.user_hash', true), ''))": "open_to_all",
    "ALTER TABLE memory_chunks NO FORCE ROW LEVEL SECURITY": "is not forced on memory_chunks",
    "DROP POLICY tenant_isolation ON memory_chunks": "no policy with USING and WITH CHECK",
    "DROP POLICY tenant_isolation ON memory_chunks;"
    "CREATE POLICY tenant_isolation ON memory_chunks FOR SELECT TO memory_app"
    " USING (user_hash = current_setting('app.user_hash', true))": "no policy with USING and WITH CHECK",
    "GRANT TRUNCATE ON memory_chunks TO memory_app": "TRUNCATE",
    "GRANT REFERENCES ON memory_chunks TO memory_app": "REFERENCES",
}


def run(sql: str) -> None:
    with as_owner() as owner, owner.cursor() as cursor:
        cursor.execute(sql)


@pytest.fixture
def repaired(transactional_db: None) -> Iterator[None]:
    yield
    run(REPAIR)


def assert_isolated() -> None:
    """The whole promise in one probe: nothing without context, one's own and nobody else's with it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM memory_chunks")
        assert cursor.fetchone() == (0,), "rows are visible without a tenant"
    with tenant_transaction(BOB), connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM memory_chunks")
        assert cursor.fetchone() == (1,), "rows of another tenant are visible"


@pytest.mark.django_db
def test_a_migrated_database_is_fit_to_serve() -> None:
    assert_live_database()
    assert {"memory_chunks", "memory_vectors", "tenants"} <= set(tenant_tables())


@pytest.mark.usefixtures("repaired")
@pytest.mark.parametrize(("sql", "said"), SABOTAGE.items(), ids=list(SABOTAGE.values()))
def test_sabotage_is_refused(sql: str, said: str) -> None:
    assert_live_database()
    run(sql)
    with pytest.raises(DatabaseMisconfigured, match=said):
        assert_live_database()
    run(REPAIR)
    assert_live_database()


@pytest.mark.usefixtures("repaired")
@pytest.mark.parametrize("sql", LEAKS)
def test_a_policy_taken_away_turns_the_isolation_probe_red(sql: str) -> None:
    remember(ALICE, "a", "Alice's diary")
    remember(BOB, "b", "Bob's diary")
    assert_isolated()
    run(sql)
    with pytest.raises(AssertionError, match="rows are visible without a tenant"):
        assert_isolated()


@pytest.mark.usefixtures("repaired")
def test_without_any_policy_nobody_sees_anything() -> None:
    """Postgres' default is to deny: the suite turns red, and no row gets out."""
    remember(ALICE, "a", "Alice's diary")
    run("DROP POLICY tenant_isolation ON memory_chunks")
    assert texts(recall(ALICE, "Alice's diary")) == []


@pytest.mark.django_db(transaction=True)
def test_the_owner_is_refused() -> None:
    with as_owner(), pytest.raises(DatabaseMisconfigured, match="The application role owns memory_chunks"):
        assert_live_database()


@pytest.mark.django_db(transaction=True)
def test_the_owner_is_bound_by_force_too() -> None:
    remember(ALICE, "a", "Alice's diary")
    with as_owner() as owner, owner.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM memory_chunks")
        assert cursor.fetchone() == (0,)


@pytest.mark.django_db
def test_another_dimension_than_the_tables_is_refused(settings: object) -> None:
    settings.MEMORY_EMBEDDING_DIM = 768  # type: ignore[attr-defined]
    with pytest.raises(DatabaseMisconfigured, match="fixed at set-up"):
        assert_live_database()


@pytest.mark.django_db(transaction=True)
class TestCensus:
    def census(self, sql: str) -> list[tuple[object, ...]]:
        with connection.connect_as("census") as census:  # type: ignore[attr-defined]
            return census.execute(sql).fetchall()

    def test_counts_across_tenants(self) -> None:
        remember(ALICE, "a", "one", "two")
        remember(BOB, "b", "three")
        counts = self.census("SELECT count(*) FROM memory_chunks GROUP BY user_hash ORDER BY 1")
        assert counts == [(1,), (2,)]

    @pytest.mark.parametrize(
        "column", ["text_cipher", "meta_cipher", "emb_cipher", "doc_id", "source", "*", "chunk_index"]
    )
    def test_reads_no_other_column(self, column: str) -> None:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            self.census(f"SELECT {column} FROM memory_chunks")

    @pytest.mark.parametrize(
        "sql", ["DELETE FROM tenants", "SELECT embedding FROM memory_vectors", "SELECT user_cipher FROM tenants"]
    )
    def test_changes_nothing(self, sql: str) -> None:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            self.census(sql)
