"""Which objects there may be in the database, and who may do what with them. A new one needs a rule here.

Not a tenant's are SHARED tables: what stands in them says nothing of what anybody remembers, and the application reads
all of it. Whoever adds a table decides which of the two it is.
"""

from collections.abc import Iterator
from typing import Any

import psycopg

from memory.tenancy.live_database import tenant_tables
from memory.tenancy.partitions import partitions

# Why a table may be without row-level security.
SHARED = {
    "django_migrations": "which migrations ran",
    "django_content_type": "the names of models",
    "django_admin_log": "acts of operators, without content",
    "django_session": "sessions of the admin",
    "auth_group": "accounts",
    "auth_group_permissions": "accounts",
    "auth_permission": "accounts",
    "auth_user": "accounts",
    "auth_user_groups": "accounts",
    "auth_user_user_permissions": "accounts",
    "axes_accessattempt": "failed logins to the admin",
    "axes_accessattemptexpiration": "failed logins to the admin",
    "axes_accessfailurelog": "failed logins to the admin",
    "axes_accesslog": "logins to the admin",
    "knox_authtoken": "empty: tokens are in memory_accesstoken",
    "keys_jobrecord": "when operators' jobs ran",
    "keys_keyrecord": "key ids and counts, no key",
    "keys_keytally": "how many rows of each table are under each key id, as last counted",
    "keys_lease": "who holds a job",
    "keys_processheartbeat": "which process holds which key ids",
    "keys_rotationrun": "how far rotations came, by hashes",
    "memory_accesstoken": "digests of tokens",
    "memory_serviceaccount": "services",
    "project_cache": "counters of throttles, under hashes",
    "project_hourlycount": "sums and levels of an hour, under names from a fixed list: of all tenants together",
    "rerank_switchchange": "who switched the reranker",
}
WITHOUT_DELETE = {"memory_serviceaccount"}
POLICIES = ("tenant_isolation", "census")
WRITE = ("SELECT", "INSERT", "UPDATE", "DELETE")

Grant = tuple[str, str, str, str]  # kind, name, role, right

# Everything that could hold or show rows, or run with the rights of another, but belongs to no extension.
_OBJECTS = """
WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')
SELECT 'pg_class'::regclass::oid, oid, CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view'
    WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence' ELSE relkind::text END,
    oid::regclass::text FROM pg_class WHERE relnamespace IN (TABLE ours) AND relkind IN ('r','p','v','m','f','S')
UNION ALL SELECT 'pg_proc'::regclass, oid, 'function', oid::regprocedure::text FROM pg_proc
    WHERE pronamespace IN (TABLE ours)
UNION ALL SELECT 'pg_operator'::regclass, oid, 'operator', oprname FROM pg_operator WHERE oprnamespace IN (TABLE ours)
UNION ALL SELECT 'pg_namespace'::regclass, oid, 'schema', nspname FROM pg_namespace WHERE oid IN (TABLE ours)
UNION ALL SELECT 'pg_trigger'::regclass, oid, 'trigger', tgname FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'pg_rewrite'::regclass, oid, 'rule', rulename FROM pg_rewrite WHERE rulename <> '_RETURN'
    AND ev_class IN (SELECT oid FROM pg_class WHERE relnamespace IN (TABLE ours))
UNION ALL SELECT 'pg_policy'::regclass, oid, 'policy', polname || ' on ' || polrelid::regclass FROM pg_policy
UNION ALL SELECT 'pg_event_trigger'::regclass, oid, 'event trigger', evtname FROM pg_event_trigger
UNION ALL SELECT 'pg_publication'::regclass, oid, 'publication', pubname FROM pg_publication
UNION ALL SELECT 'pg_foreign_server'::regclass, oid, 'foreign server', srvname FROM pg_foreign_server
UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, 'statistics', stxname FROM pg_statistic_ext
UNION ALL SELECT 'pg_extension'::regclass, oid, 'extension', extname FROM pg_extension
UNION ALL SELECT 'pg_language'::regclass, oid, 'language', lanname FROM pg_language WHERE lanpltrusted
"""
_NOT_OF_AN_EXTENSION = f"""
SELECT kind, name FROM ({_OBJECTS}) o (classid, objid, kind, name)
WHERE (classid, objid) NOT IN (SELECT classid, objid FROM pg_depend WHERE deptype = 'e') ORDER BY 1, 2
"""


def strangers(cursor: psycopg.Cursor[Any]) -> Iterator[tuple[str, str]]:
    """Objects, by kind and name, that no rule covers."""
    known = {("schema", "public"), ("extension", "plpgsql"), ("extension", "vector"), ("language", "sql")}
    known |= {("table", table) for table in (*SHARED, *all_tenant_tables(cursor))}
    known |= {
        ("policy", f"{policy} on {table}")
        for table in all_tenant_tables(cursor)
        for policy in ("tenant_isolation", "census")
    }
    known |= {("sequence", name) for name in _sequences_of_shared_tables(cursor)}
    cursor.execute(_NOT_OF_AN_EXTENSION)
    yield from (found for found in cursor.fetchall() if found not in known)


def all_tenant_tables(cursor: psycopg.Cursor[Any]) -> list[str]:
    """The tenant tables and their partitions."""
    return [name for table in tenant_tables() for name in (table, *partitions(cursor, table))]  # type: ignore[arg-type]


def _sequences_of_shared_tables(cursor: psycopg.Cursor[Any]) -> list[str]:
    cursor.execute(
        "SELECT d.objid::regclass::text FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'"
        " WHERE d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')"
        " AND d.refobjid::regclass::text = ANY (%s)",
        [list(SHARED)],
    )
    return [name for (name,) in cursor.fetchall()]


# --- Who may do what -------------------------------------------------------------------------------------------------
CENSUS_COLUMNS = {
    "tenants": {"user_hash", "enc_key_id", "hmac_key_id", "chunk_count", "created_at", "recipe", "row_set"},
    "memory_chunks": {"user_hash", "enc_key_id", "created_at", "updated_at", "expires_at"},
    "memory_vectors": {"user_hash"},
    "memory_terms": {"user_hash"},
    "memory_requests": {"user_hash", "enc_key_id", "created_at"},
    "memory_operations": {"user_hash", "enc_key_id", "state", "held_until", "created_at", "finished_at"},
}
_GRANTS = """
SELECT kind, name, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type FROM (
    SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, oid::regclass::text, relowner, (aclexplode(relacl)).*
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL SELECT 'column', attrelid::regclass || '.' || attname, relowner, (aclexplode(attacl)).*
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'schema', nspname, nspowner, (aclexplode(nspacl)).* FROM pg_namespace WHERE nspname = 'public'
    UNION ALL SELECT 'database', 'this', datdba, (aclexplode(datacl)).* FROM pg_database
        WHERE datname = current_database()
) a (kind, name, owner, grantor, grantee, privilege_type, is_grantable) WHERE grantee <> owner
"""


def found_grants(cursor: psycopg.Cursor[Any]) -> list[Grant]:
    """Every right that somebody has who is not the owner."""
    cursor.execute(_GRANTS)
    return cursor.fetchall()


def expected_grants(cursor: psycopg.Cursor[Any]) -> Iterator[Grant]:
    """Every right that a rule gives."""
    for table in tenant_tables():
        yield from (("table", table, "memory_app", right) for right in WRITE)
        yield from (("column", f"{table}.{column}", "memory_census", "SELECT") for column in CENSUS_COLUMNS[table])
    for table in SHARED:
        rights = [right for right in WRITE if not (right == "DELETE" and table in WITHOUT_DELETE)]
        yield from (("table", table, "memory_app", right) for right in rights)
    yield from (("table", table, "memory_backup", "SELECT") for table in (*SHARED, *all_tenant_tables(cursor)))
    for sequence in _sequences_of_shared_tables(cursor):
        yield from (("sequence", sequence, "memory_app", right) for right in ("USAGE", "SELECT"))
        yield ("sequence", sequence, "memory_backup", "SELECT")
    yield ("schema", "public", "PUBLIC", "USAGE")
    yield from (("database", "this", role, "CONNECT") for role in ("memory_app", "memory_census", "memory_backup"))
