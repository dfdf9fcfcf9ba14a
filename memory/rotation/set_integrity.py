"""Compares a tenant's rows, all together, with the digest of their set: was any deleted, replayed or rolled back?

Which row it was cannot be told: the digest knows the set, not its members.
"""

from collections.abc import Iterator

from django.conf import settings

from keys.exceptions import KeyConfigurationError
from keys.retry_while_away import retry_while_away
from memory.index.completed_macs import rows_of_tenant
from memory.rls import tenant_snapshot_by_hash
from memory.rotation.findings import NO_MAC, ROW_SET, Finding, Inspection
from memory.security import UserHash
from memory.tenancy.cursors import binary_cursor
from memory.tenancy.row_set import RowSet, RowSetAltered, RowSetChange

RECORDED = "SELECT row_set FROM tenants WHERE user_hash = %s"


def inspect_row_set(seen: Inspection, tenant: UserHash) -> None:
    """Report to `seen` where a tenant's rows are not the set that was written."""
    try:
        found = retry_while_away(_read, tenant)
    except KeyConfigurationError:
        return  # of an HMAC key that this process does not hold
    if found is None:
        return
    recorded, rows = found
    if recorded is None and settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC:
        seen.without_set += 1
    else:
        seen.report(_findings(tenant, recorded, rows))


def _read(tenant: UserHash) -> tuple[bytes | None, RowSetChange] | None:
    # One snapshot for the digest and all rows, so that no write comes in between, and none waits.
    with tenant_snapshot_by_hash(tenant) as user_hash, binary_cursor() as cursor:
        recorded = cursor.execute(RECORDED, [user_hash]).fetchone()
        return None if recorded is None else (recorded[0], rows_of_tenant(user_hash))


def _findings(tenant: UserHash, recorded: bytes | None, rows: RowSetChange) -> Iterator[Finding]:
    if recorded is None:
        yield Finding(NO_MAC, tenant[:8], "", "", "its set of rows has no digest", "tenants")
        return
    try:
        row_set = RowSet.read(tenant, recorded)
    except RowSetAltered:
        yield Finding(
            ROW_SET, tenant[:8], "", "", "the digest of its set of rows is not one that was written", "tenants"
        )
        return
    if not row_set.holds(rows):
        detail = (
            f"{rows.count:,} rows, and by their digest {row_set.count:,}: some were deleted, replayed or rolled back"
        )
        yield Finding(ROW_SET, tenant[:8], "", "", detail, "tenants")
