"""Ways past the policies that leave them as they are: views, functions and defaults that act for somebody else.

A view reads its tables with its owner's rights, a SECURITY DEFINER function runs with its owner's, a materialized view
is a copy without policies, and a default of the setting names a user before any door does.
"""

from collections.abc import Iterator, Sequence

from django.db.backends.utils import CursorWrapper

from memory.tenancy.current_hash import SETTING

# Views of views as well. A view with security_invoker asks for the caller's rights, and is bound by the policies.
_VIEWS = """
WITH RECURSIVE reached AS (
    SELECT to_regclass(name)::oid AS oid FROM unnest(%s::text[]) AS name
    UNION
    SELECT rule.ev_class FROM reached
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = reached.oid
    JOIN pg_rewrite rule ON d.classid = 'pg_rewrite'::regclass AND rule.oid = d.objid
)
SELECT c.oid::regclass::text FROM reached JOIN pg_class c USING (oid)
WHERE c.relkind IN ('v', 'm') AND has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE') AND NOT EXISTS (
    SELECT FROM pg_options_to_table(c.reloptions) WHERE option_name = 'security_invoker' AND option_value::bool
) ORDER BY 1
"""
_FUNCTIONS = """
SELECT oid::regprocedure::text FROM pg_proc p
WHERE prosecdef AND proowner <> current_user::regrole AND pronamespace <> 'pg_catalog'::regnamespace
AND has_function_privilege(oid, 'EXECUTE') AND has_schema_privilege(pronamespace, 'USAGE') AND NOT EXISTS (
    SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e'
) ORDER BY 1
"""
_DEFAULTS = """
SELECT FROM pg_db_role_setting, unnest(setconfig) AS value
WHERE starts_with(lower(value), %s) AND setrole IN (0, current_user::regrole)
AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


def bypass_problems(cursor: CursorWrapper, tables: Sequence[str]) -> Iterator[str]:
    """Every way past the policies of `tables` that the current role could take, as one line each."""
    cursor.execute(_VIEWS, [list(tables)])
    for (view,) in cursor.fetchall():
        yield f"The view {view} shows tenant tables past their policies: REVOKE ALL ON {view} FROM the application."
    cursor.execute(_FUNCTIONS)
    for (function,) in cursor.fetchall():
        yield f"{function} runs with its owner's rights: REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC."
    cursor.execute(_DEFAULTS, [f"{SETTING}="])
    if cursor.fetchone() is not None:
        yield f"{SETTING} has a default, which names a user: ALTER ROLE or ALTER DATABASE … RESET {SETTING}."
