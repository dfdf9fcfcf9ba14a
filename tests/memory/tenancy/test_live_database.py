"""What `assert_live_database()` refuses. Each sabotage is one that would let a tenant out, or a role in."""

from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection

from database.roles import as_owner
from memory.exceptions import DatabaseMisconfigured
from memory.rls import tenant_transaction
from memory.tenancy.live_database import assert_live_database, same_expression, tenant_tables
from tests.factories import ALICE, BOB, recall, remember, texts

REPAIR = """
    ALTER TABLE memory_chunks ENABLE ROW LEVEL SECURITY;
    ALTER TABLE memory_chunks FORCE ROW LEVEL SECURITY;
    DROP POLICY IF EXISTS tenant_isolation ON memory_chunks;
    DROP POLICY IF EXISTS open_to_all ON memory_chunks;
    CREATE POLICY tenant_isolation ON memory_chunks TO memory_app
        USING (user_hash = nullif(current_setting('app.user_hash', true), ''))
        WITH CHECK (user_hash = nullif(current_setting('app.user_hash', true), ''));
    DROP FUNCTION IF EXISTS public.current_setting(text, boolean);
    REVOKE TRUNCATE, REFERENCES ON memory_chunks FROM memory_app;
"""
OWN_ROWS = "user_hash = nullif(current_setting('app.user_hash', true), '')"


def policy(using: str = OWN_ROWS, check: str = OWN_ROWS, *, to: str = "memory_app", command: str = "ALL") -> str:
    """The tenant policy of memory_chunks made anew, weakened in one way."""
    with_check = f"WITH CHECK ({check})" if check else ""
    return (
        "DROP POLICY tenant_isolation ON memory_chunks;"
        f"CREATE POLICY tenant_isolation ON memory_chunks FOR {command} TO {to} USING ({using}) {with_check}"
    )


NOT_COMPARED = "does not compare with app.user_hash"
WEAKENED = {
    "USING (true)": (policy("true"), NOT_COMPARED),
    "WITH CHECK (true)": (policy(check="true"), NOT_COMPARED),
    "OR true": (policy(f"{OWN_ROWS} OR true"), NOT_COMPARED),
    "OR a constant hash": (policy(f"{OWN_ROWS} OR user_hash = '{'0' * 64}'"), NOT_COMPARED),
    "WITH CHECK OR true": (policy(check=f"({OWN_ROWS}) OR true"), NOT_COMPARED),
    "OR NULL": (policy(f"coalesce({OWN_ROWS}, true)"), NOT_COMPARED),
    "NOT": (policy(f"NOT ({OWN_ROWS})"), NOT_COMPARED),
    "no WITH CHECK": (policy(check=""), "no policy with USING and WITH CHECK"),
    "another setting": (policy(OWN_ROWS.replace("app.", "my.")), NOT_COMPARED),
    "another case of the setting": (policy(OWN_ROWS.replace("app.user", "APP.USER")), NOT_COMPARED),
    "another column": (policy(OWN_ROWS.replace("user_hash =", "doc_id =")), NOT_COMPARED),
    "<> for =": (policy(OWN_ROWS.replace("=", "<>")), NOT_COMPARED),
    ">= for =": (policy(OWN_ROWS.replace("=", ">=")), NOT_COMPARED),
    "no nullif": (policy("user_hash = current_setting('app.user_hash', true)"), NOT_COMPARED),
    "a default for the setting": (policy(OWN_ROWS.replace("nullif", "coalesce")), NOT_COMPARED),
    "a cast that cuts": (policy(OWN_ROWS.replace("user_hash =", "user_hash::char(1) =")), NOT_COMPARED),
    "another function of the name": (
        "CREATE FUNCTION public.current_setting(text, boolean) RETURNS text LANGUAGE sql AS 'SELECT repeat($1, 0)';"
        + policy(OWN_ROWS.replace("current_setting", "public.current_setting")),
        NOT_COMPARED,
    ),
    "TO PUBLIC": (policy(to="PUBLIC"), "tenant_isolation on memory_chunks is for PUBLIC"),
    "FOR SELECT": (policy(check="", command="SELECT"), "no policy with USING and WITH CHECK"),
    "a permissive one beside it": (
        "CREATE POLICY open_to_all ON memory_chunks FOR SELECT TO memory_app USING (source = 'shared')",
        "open_to_all on memory_chunks does not compare",
    ),
    "a permissive one for PUBLIC beside it": (
        f"CREATE POLICY open_to_all ON memory_chunks FOR SELECT TO PUBLIC USING ({OWN_ROWS})",
        "open_to_all on memory_chunks is for PUBLIC",
    ),
    "no FORCE": ("ALTER TABLE memory_chunks NO FORCE ROW LEVEL SECURITY", "is not forced on memory_chunks"),
    "not enabled": ("ALTER TABLE memory_chunks DISABLE ROW LEVEL SECURITY", "is off on memory_chunks"),
}
LEAKS = {
    "ALTER TABLE memory_chunks DISABLE ROW LEVEL SECURITY": "is off on memory_chunks",
    "CREATE POLICY open_to_all ON memory_chunks TO memory_app USING (true)": "open_to_all",
}
SABOTAGE = LEAKS | {
    "CREATE POLICY open_to_all ON memory_chunks TO memory_app"
    " USING (user_hash <> nullif(current_setting('app.user_hash', true), ''))": "open_to_all",
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
@pytest.mark.parametrize("weakness", WEAKENED)
def test_a_weakened_policy_is_refused(weakness: str) -> None:
    sql, said = WEAKENED[weakness]
    run(sql)
    with pytest.raises(DatabaseMisconfigured, match=said):
        assert_live_database()


@pytest.mark.parametrize(
    "deparsed",
    [
        "(user_hash = NULLIF(current_setting('app.user_hash'::text, true), ''::text))",
        "((user_hash)::text = NULLIF(current_setting('app.user_hash'::text, true), ''::text))",
        "user_hash = nullif(current_setting('app.user_hash', TRUE), '')",
        "((\"user_hash\" = NULLIF((current_setting(('app.user_hash'::text), true)), (''::text))))",
    ],
)
def test_the_spelling_of_a_version_of_postgres_does_not_matter(deparsed: str) -> None:
    assert same_expression(deparsed, OWN_ROWS)


@pytest.mark.parametrize(
    "deparsed",
    [
        "(user_hash = NULLIF(current_setting('app.USER_HASH'::text, true), ''::text))",
        "(user_hash = NULLIF(current_setting('app.user_hash'::text, true), ' '::text))",
        "((user_hash)::character(1) = NULLIF(current_setting('app.user_hash'::text, true), ''::text))",
        "(\"USER_HASH\" = NULLIF(current_setting('app.user_hash'::text, true), ''::text))",
        "(user_hash = NULLIF(current_setting('app.user_hash'::text, true), ''::text)) OR true",
    ],
)
def test_a_difference_in_meaning_does(deparsed: str) -> None:
    assert not same_expression(deparsed, OWN_ROWS)


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
