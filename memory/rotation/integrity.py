"""Inspects every tenant: whether its seals open, its rows are as they were written and all there, and its index entries
match them.

Inside each tenant's door: the user id, what the tenant's row says of the others, the set of these
(`memory.rotation.set_integrity`), and every one with its index entries (`memory.rotation.row_integrity`). Across
tenants, by the census role: orphans, which are rows under a hash that no tenant has, and users known twice, which are
under two hashes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.db import DataError

from keys.keyring import get_keyring
from keys.models import Purpose
from keys.retry_while_away import retry_while_away
from keys.runs import open_run
from memory.rls import tenant_transaction_by_hash
from memory.rotation.findings import (
    COUNT,
    EXPIRING,
    KNOWN_TWICE,
    ORPHANS,
    UNREADABLE,
    USER_ID,
    Finding,
    Inspection,
)
from memory.rotation.other_rows import inspect_other_rows
from memory.rotation.row_integrity import inspect_rows
from memory.rotation.set_integrity import inspect_row_set
from memory.rotation.user_ids import TenantFacts, UserIdUnreadable, tenant_facts
from memory.security import UserHash, user_hashes
from memory.tenancy import census
from memory.tenancy.cursors import binary_cursor

COUNTS = """
SELECT chunk_count, (SELECT count(*) FROM memory_chunks WHERE user_hash = %(user_hash)s),
       NOT expiring AND EXISTS (
           SELECT FROM memory_chunks WHERE user_hash = %(user_hash)s AND expires_at IS NOT NULL
       )
FROM tenants WHERE user_hash = %(user_hash)s
"""


def inspect_all(*, sample: float = 1.0, advance: Callable[[int], Any] = lambda rows: None) -> Inspection:
    """Inspect every tenant, and look for orphans. A tenant that a rotation moves meanwhile may be inspected twice."""
    seen = Inspection()
    for tenant in census.all_tenants():
        seen.add(inspect_tenant(tenant, sample=sample, advance=advance))
        seen.report(_known_twice(tenant))
    # Orphans of an open rotation are no damage: the flip gives them a tenant, or the next run deletes them.
    if open_run(Purpose.HMAC) is None:
        seen.report(orphan_findings(retry_while_away(census.orphan_hashes)))
    return seen


def inspect_tenant(
    tenant: UserHash, *, sample: float = 1.0, advance: Callable[[int], Any] = lambda rows: None
) -> Inspection:
    """Inspect one tenant; `sample` is the share of its rows to open, 0 to 1. A tenant that is gone gives no findings.

    `advance` is called with the number of rows of each read.
    """
    seen = Inspection()
    facts = tenant_facts(tenant)
    if facts is None:
        return seen
    seen.tenants = 1
    seen.report(_inspect_user_id(facts))
    seen.report(retry_while_away(_inspect_tenant_row, tenant))
    try:
        inspect_row_set(seen, tenant)
        for rows in inspect_rows(seen, tenant, sample):
            advance(rows)
    except DataError:  # as an infinite time, which nobody can have stored
        seen.report([Finding(UNREADABLE, tenant[:8], "", "", "a column holds a value that cannot be read")])
    inspect_other_rows(seen, tenant)
    return seen


def _known_twice(tenant: UserHash) -> Iterator[Finding]:
    """A finding if the user of a tenant under an accepted key has a tenant under another key as well."""
    facts = tenant_facts(tenant)
    if facts is None or tenant.hmac_key_id == get_keyring().hmac_current.key_id:
        return
    try:
        hashes = user_hashes(facts.open_user_id())
    except UserIdUnreadable:
        return
    if len(retry_while_away(census.known_hashes, hashes)) > 1:
        detail = "its user is known under another key as well: some process did not accept both keys"
        yield Finding(KNOWN_TWICE, tenant[:8], "", tenant.hmac_key_id, detail)


def orphan_findings(hashes: Sequence[str]) -> Iterator[Finding]:
    """One finding for each hash that chunks carry and no tenant has."""
    for user_hash in hashes:
        yield Finding(ORPHANS, user_hash[:8], "", "", "rows of a hash that is no tenant's")


def _inspect_user_id(facts: TenantFacts) -> Iterator[Finding]:
    try:
        facts.open_user_id()
    except UserIdUnreadable as error:
        yield Finding(USER_ID, facts.user_hash[:8], "", facts.enc_key_id, str(error))


def _inspect_tenant_row(user_hash: UserHash) -> list[Finding]:
    # All in one statement, so that no write can come in between.
    with tenant_transaction_by_hash(user_hash), binary_cursor() as cursor:
        cursor.execute(COUNTS, {"user_hash": user_hash})
        counted, in_truth, expires_unsaid = cursor.fetchone() or (0, 0, False)
    findings: list[Finding] = []
    if counted != in_truth:
        findings.append(Finding(COUNT, user_hash[:8], "", "", f"{counted} chunks by its count, {in_truth} in truth"))
    if expires_unsaid:
        detail = "rows expire, and by the tenant's row none does"
        findings.append(Finding(EXPIRING, user_hash[:8], "", "", detail))
    return findings
