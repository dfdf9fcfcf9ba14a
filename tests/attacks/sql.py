"""Statements that could show a row of somebody else, and the situations in which they are sent."""

from dataclasses import dataclass

from memory.tenancy.live_database import tenant_tables
from tests.factories import ALICE


@dataclass(frozen=True)
class Situation:
    """What was sent in the transaction before the attack, and whose rows it may show (None: nobody's)."""

    name: str
    before: tuple[str, ...]
    viewer: str | None


# {alice}, {bob}: their user hashes.
OWN = "SET LOCAL app.user_hash = '{alice}'"
FOREIGN = "SET LOCAL app.user_hash = '{bob}'"
SWALLOWED = (
    "DO $do$ BEGIN PERFORM set_config('app.user_hash', '{bob}', true); RAISE 'no'; EXCEPTION WHEN OTHERS THEN END $do$"
)
MALFORMED = (
    "", " ", "%", "_", "*", "NULL", "true", "' OR true --", "{{}}", "person:2", "{bob} ", " {bob}", "{bob}\n", "{bob}0",
    "{bob},{alice}", "\\x{bob}", "{upper_bob}", "{short_bob}", "0", "{zeros}", "{bob}%", "^{bob}", "\t", "é", "ſ",
)  # fmt: skip
NOBODYS = {
    "no setting": (),
    "set and reset": (OWN, "RESET app.user_hash"),
    "foreign and reset": (FOREIGN, "RESET app.user_hash"),
    "foreign and RESET ALL": (FOREIGN, "RESET ALL"),
    "foreign, then the default": (FOREIGN, "SET LOCAL app.user_hash TO DEFAULT"),
    "foreign in a savepoint that is rolled back": ("SAVEPOINT a", FOREIGN, "ROLLBACK TO SAVEPOINT a"),
    "foreign in a block that fails": (SWALLOWED,),
    "a setting of nearly the name": ("SET LOCAL app.userhash = '{bob}'", "SET LOCAL apps.user_hash = '{bob}'"),
    "row_security off": ("SET LOCAL row_security = off",),
}
ALICES = {
    "own": (OWN,),
    "own by set_config": ("SELECT set_config('app.user_hash', '{alice}', true)",),
    "own over a foreign one": (FOREIGN, OWN),
    "foreign in a savepoint that is rolled back": (OWN, "SAVEPOINT a", FOREIGN, "ROLLBACK TO SAVEPOINT a"),
    "foreign in nested savepoints": (
        OWN, "SAVEPOINT a", FOREIGN, "SAVEPOINT b", FOREIGN, "RELEASE SAVEPOINT b", "ROLLBACK TO SAVEPOINT a",
    ),
    "foreign in a block that fails": (OWN, SWALLOWED),
    "its own role set": (OWN, "SET LOCAL ROLE memory_app", "SET LOCAL SESSION AUTHORIZATION DEFAULT"),
    "another search path": (OWN, "SET LOCAL search_path = pg_temp, pg_catalog, public"),
    "serializable and read committed plans": (OWN, "SET LOCAL plan_cache_mode = force_generic_plan"),
    "no index scans": (OWN, "SET LOCAL enable_indexscan = off", "SET LOCAL enable_bitmapscan = off"),
    "no sequential scans": (OWN, "SET LOCAL enable_seqscan = off"),
    "parallel workers": (
        OWN, "SET LOCAL debug_parallel_query = on", "SET LOCAL min_parallel_table_scan_size = 0",
        "SET LOCAL parallel_setup_cost = 0", "SET LOCAL parallel_tuple_cost = 0",
    ),
}  # fmt: skip
SITUATIONS = (
    *(Situation(name, before, None) for name, before in NOBODYS.items()),
    *(Situation(f"malformed {value!r}", (f"SELECT set_config('app.user_hash', E'{_escaped}', true)",), None)
      for value in MALFORMED for _escaped in [value.replace("\\", "\\\\").replace("'", "''")]),
    *(Situation(name, before, ALICE) for name, before in ALICES.items()),
)  # fmt: skip

# Each gives one number: of the rows of a table that can be seen, changed or locked.
COUNTING = (
    "SELECT count(*) FROM {table}",
    "SELECT count(*) FROM {table} WHERE user_hash = '{bob}' OR true",
    "SELECT count(*) FROM {table} WHERE (user_hash = '{bob}') IS NOT NULL",
    "SELECT count(*) FROM {table} TABLESAMPLE SYSTEM (100)",
    "SELECT count(*) FROM {table} TABLESAMPLE BERNOULLI (100)",
    "SELECT count(*) FROM (SELECT * FROM {table} OFFSET 0) s",
    "SELECT count(*) FROM (SELECT 1 FROM {table} FOR UPDATE) s",
    "SELECT count(*) FROM (SELECT 1 FROM {table} FOR KEY SHARE SKIP LOCKED) s",
    "SELECT count(DISTINCT (a.tableoid, a.ctid)) FROM {table} a CROSS JOIN {table} b",
    "SELECT count(DISTINCT (a.tableoid, a.ctid)) FROM {table} a LEFT JOIN tenants t ON true",
    "WITH s AS MATERIALIZED (SELECT * FROM {table}) SELECT count(*) FROM s",
    "WITH RECURSIVE s AS (SELECT user_hash, 1 AS n FROM {table} UNION ALL SELECT user_hash, n + 1 FROM s WHERE n < 2)"
    " SELECT count(*) / 2 FROM s",
    "SELECT count(s) FROM {table}, LATERAL (SELECT {table}.user_hash) s",
    "SELECT coalesce(jsonb_array_length(jsonb_agg(t)), 0) FROM {table} t",
    "SELECT coalesce(array_length(array_agg(t.*::text), 1), 0) FROM {table} t",
    "SELECT coalesce(max(n), 0) FROM (SELECT row_number() OVER () AS n FROM {table}) s",
    "SELECT count(*) FROM {table} WHERE ctid >= '(0,0)' AND ctid < '(4294967295,0)'",
    "SELECT count(*) FROM {table} WHERE user_hash >= '' AND user_hash < 'g'",
    "WITH s AS (UPDATE {table} SET user_hash = user_hash RETURNING 1) SELECT count(*) FROM s",
    "WITH s AS (DELETE FROM {table} RETURNING 1) SELECT count(*) FROM s",
    "WITH s AS (MERGE INTO {table} t USING (VALUES (1)) v (n) ON t.user_hash > '' WHEN MATCHED THEN DELETE"
    " RETURNING 1) SELECT count(*) FROM s",
)

# Each may give or say anything but a value of somebody else's.
SPEAKING = (
    "TABLE {table}",
    "SELECT * FROM {table}",
    "SELECT t FROM {table} t",
    "SELECT row_to_json(t) FROM {table} t",
    "SELECT min(user_hash), max(user_hash) FROM {table}",
    "SELECT string_agg(user_hash, ',') FROM {table}",
    "SELECT mode() WITHIN GROUP (ORDER BY user_hash) FROM {table}",
    "SELECT first_value(user_hash) OVER (ORDER BY user_hash DESC) FROM {table}",
    "SELECT DISTINCT ON (user_hash) user_hash FROM {table} ORDER BY user_hash DESC",
    "VALUES ((SELECT max(user_hash) FROM {table}))",
    "SELECT user_hash FROM {table} UNION SELECT user_hash FROM tenants",
    "SELECT user_hash FROM {table} WHERE user_hash::int = 1",
    "SELECT user_hash FROM {table} WHERE 1 / (CASE WHEN user_hash = '{bob}' THEN 0 ELSE 1 END) = 1",
    "SELECT user_hash FROM {table} WHERE user_hash ~ (user_hash || '(')",
    "SELECT user_hash FROM {table} WHERE user_hash::json IS NULL",
    "SELECT user_hash FROM {table} ORDER BY user_hash::int",
    "SELECT user_hash::date FROM {table}",
    "SELECT set_config('app.leak', string_agg(user_hash, ','), true) FROM {table}",
    "SELECT pg_notify('leak', user_hash) FROM {table}",
    "UPDATE {table} SET user_hash = user_hash RETURNING *",
    "DELETE FROM {table} RETURNING *",
    # Reads no column, so the policy does not filter but raises: it tells that somebody has a row, and no more.
    "MERGE INTO {table} t USING (VALUES (1)) v (n) ON true WHEN MATCHED THEN DELETE",
    "EXPLAIN (ANALYZE, VERBOSE, BUFFERS, SETTINGS, WAL) SELECT * FROM {table}",
    "EXPLAIN (GENERIC_PLAN, VERBOSE) SELECT * FROM {table} WHERE user_hash = $1",
    "EXPLAIN (ANALYZE, FORMAT JSON) DELETE FROM {table}",
    "COPY {table} TO STDOUT",
    "COPY (SELECT * FROM {table}) TO STDOUT",
    "COPY (SELECT * FROM {table}) TO STDOUT (FORMAT binary)",
    "COPY {table} TO '/tmp/leak'",
    "COPY {table} TO PROGRAM 'cat'",
    "COPY {table} FROM STDIN",
    "SELECT query_to_xml('SELECT * FROM {table}', true, false, '')",
    "SELECT table_to_xml('{table}', true, false, '')",
    "SELECT ts_stat('SELECT to_tsvector(user_hash) FROM {table}')",
    "DO $do$ DECLARE r record; BEGIN FOR r IN SELECT * FROM {table} LOOP RAISE NOTICE '%', r; END LOOP; END $do$",
    "DO $do$ BEGIN RAISE '%', (SELECT string_agg(user_hash, ',') FROM {table}); END $do$",
    "SELECT currtid2('{table}', '(0,1)')",
    "SELECT pg_relation_size('{table}'), pg_relation_filepath('{table}')",
    "SELECT get_raw_page('{table}', 0)",
    "SELECT pg_read_binary_file(pg_relation_filepath('{table}'))",
    "CREATE TEMP TABLE leak AS SELECT * FROM {table}",
    "SELECT * INTO TEMP leak FROM {table}",
    "CREATE TEMP VIEW leak AS SELECT * FROM {table}",
    "CREATE VIEW leak AS SELECT * FROM {table}",
    "CREATE MATERIALIZED VIEW leak AS SELECT * FROM {table}",
    "CREATE RULE leak AS ON SELECT TO {table} DO INSTEAD SELECT * FROM tenants",
    "CREATE FUNCTION pg_temp.leak({table}) RETURNS bool LANGUAGE sql AS 'SELECT true'",
    "CREATE FUNCTION leak() RETURNS SETOF {table} LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM {table}'",
    "CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)",
    "CREATE TRIGGER leak AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger()",
    "CREATE STATISTICS leak ON user_hash FROM {table}",
    "CREATE INDEX leak ON {table} (user_hash)",
    "CREATE PUBLICATION leak FOR TABLE {table}",
    "CREATE POLICY leak ON {table} USING (true)",
    "ALTER POLICY tenant_isolation ON {table} USING (true)",
    "DROP POLICY tenant_isolation ON {table}",
    "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE {table} OWNER TO memory_app",
    "ALTER TABLE {table} INHERIT tenants",
    "CREATE TABLE leak () INHERITS ({table})",
    "TRUNCATE {table}",
    "TRUNCATE {table} CASCADE",
    "DROP TABLE {table}",
    "GRANT SELECT ON {table} TO PUBLIC",
    "SET LOCAL ROLE memory_owner",
    "SET LOCAL ROLE memory_backup",
    "SET LOCAL ROLE memory_census",
    "SET LOCAL SESSION AUTHORIZATION memory_backup",
    "ALTER ROLE memory_app BYPASSRLS",
    "ALTER ROLE memory_app SUPERUSER",
    "ALTER ROLE memory_app SET app.user_hash = '{bob}'",
    "ALTER DATABASE postgres SET app.user_hash = '{bob}'",
    "ALTER SYSTEM SET row_security = off",
    "SET LOCAL session_replication_role = replica",
    "SET LOCAL allow_system_table_mods = on",
    "UPDATE pg_class SET relrowsecurity = false WHERE relname = '{table}'",
    "SELECT * FROM pg_statistic",
    "SELECT * FROM pg_stats WHERE tablename = '{table}'",
    "SELECT * FROM pg_stats_ext",
    "SELECT * FROM pg_stats_ext_exprs",
    "SELECT * FROM pg_largeobject",
    "SELECT * FROM pg_cursors",
    "SELECT * FROM pg_prepared_statements",
    "SELECT * FROM pg_locks",
    "SELECT * FROM pg_file_settings",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_logical_slot_peek_changes('leak', NULL, NULL)",
    "SELECT pg_create_logical_replication_slot('leak', 'test_decoding')",
    "SELECT pg_ls_dir('base')",
    "SELECT lo_import('/etc/passwd')",
    "LOAD 'leak'",
    "CREATE EXTENSION pageinspect",
    "CREATE EXTENSION dblink",
    "LOCK TABLE {table} IN ACCESS SHARE MODE",
)
# What nobody may do by any means: refused, not merely without effect.
REFUSED_IF_IT_BEGINS = (
    "CREATE", "ALTER", "DROP", "TRUNCATE", "GRANT", "LOAD", "COPY {table} TO '", "COPY {table} TO PROGRAM", "SET LOCAL",
    "SELECT pg_read", "SELECT get_raw_page", "SELECT pg_create", "SELECT pg_ls", "SELECT lo_import", "SELECT * INTO",
    "UPDATE pg_", "SELECT * FROM pg_statistic", "SELECT * FROM pg_authid", "SELECT * FROM pg_largeobject",
    "SELECT * FROM pg_file_settings", "COPY {table} FROM",
)  # fmt: skip

ON_A_PARTITION = (
    "SELECT * FROM {table}",
    "SELECT 1 FROM {table}",
    "COPY {table} TO STDOUT",
    "DELETE FROM {table}",
    "UPDATE {table} SET user_hash = '{alice}'",
    "INSERT INTO {table} (user_hash) VALUES ('{alice}')",
    "TRUNCATE {table}",
    "LOCK TABLE {table} IN ACCESS SHARE MODE",
)


def names(alice: str, bob: str) -> dict[str, str]:
    """The values of the placeholders in the statements."""
    return {"alice": alice, "bob": bob, "upper_bob": bob.upper(), "short_bob": bob[:63], "zeros": "0" * 64}


def tables() -> list[str]:
    """Every tenant table."""
    return tenant_tables()
