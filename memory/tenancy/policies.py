"""The SQL that guards a tenant table: row-level security, policies and grants.

Migrations do not import it: their SQL is frozen. `tests/memory/test_migrations.py` compares the two in the form in
which the database prints them.
"""

from collections.abc import Sequence

APPLICATION_ROLE = "memory_app"
CENSUS_ROLE = "memory_census"
POLICY = "tenant_isolation"
CENSUS_POLICY = "census"
# Bare, without a sub-select: Citus refuses those in policies. nullif: an ended SET LOCAL leaves '', not NULL.
OWN_ROWS = "user_hash = nullif(current_setting('app.user_hash', true), '')"


def guards(table: str, census_columns: Sequence[str]) -> list[str]:
    """Statements that isolate the tenants of a new `table`; the census may read `census_columns` of it, and no more.

    Nothing is granted before the policies exist and apply to the owner too.
    """
    return [
        f"REVOKE ALL ON {table} FROM {APPLICATION_ROLE}, {CENSUS_ROLE}",
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY {POLICY} ON {table} TO {APPLICATION_ROLE} USING ({OWN_ROWS}) WITH CHECK ({OWN_ROWS})",
        # Policies OR together, so this one names its role; the application is never a member of it.
        f"CREATE POLICY {CENSUS_POLICY} ON {table} FOR SELECT TO {CENSUS_ROLE} USING (true)",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APPLICATION_ROLE}",
        f"GRANT SELECT ({', '.join(census_columns)}) ON {table} TO {CENSUS_ROLE}",
    ]
