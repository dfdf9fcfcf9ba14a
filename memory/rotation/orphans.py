"""Deletes orphans batch by batch: rows under a hash that no tenant has, as a stopped move leaves them."""

from collections.abc import Callable
from uuid import UUID

from keys import steps
from keys.retry_while_away import retry_while_away
from memory.rls import tenant_transaction_by_hash
from memory.security import UserHash
from memory.tenancy.cursors import binary_cursor

Advance = Callable[[int], None]

FIRST = UUID(int=0)

# Where a batch of rows ends. Ranges of ids, and no join: without statistics the planner joins a tenant with itself.
BATCH_END = (
    "SELECT id FROM memory_chunks WHERE user_hash = %(user_hash)s AND id >= %(low)s"
    " ORDER BY id OFFSET %(limit)s LIMIT 1"
)
# Deletes nothing where a tenant has the hash.
DELETE_ORPHANS = (
    "DELETE FROM memory_chunks WHERE user_hash = %(user_hash)s AND id >= %(low)s"
    " AND (%(high)s::uuid IS NULL OR id < %(high)s)"
    " AND NOT EXISTS (SELECT 1 FROM tenants WHERE user_hash = %(user_hash)s)"
)


def clear_orphans(user_hash: UserHash, batch: int, advance: Advance) -> None:
    """Delete the rows under a hash if no tenant has it, `batch` rows a transaction. `advance` counts none as moved."""
    low: UUID | None = FIRST
    while low is not None:
        low = retry_while_away(_clear_batch, user_hash, low, batch)
        advance(0)
        steps.reached("orphans cleared")


def _clear_batch(user_hash: UserHash, low: UUID, batch: int) -> UUID | None:
    with tenant_transaction_by_hash(user_hash), binary_cursor() as cursor:
        cursor.execute(BATCH_END, {"user_hash": user_hash, "low": low, "limit": batch})
        (high,) = cursor.fetchone() or (None,)
        cursor.execute(DELETE_ORPHANS, {"user_hash": user_hash, "low": low, "high": high})
        return high
