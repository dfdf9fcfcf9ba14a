"""Moves rows to a new encryption key: re-seals them in place, and verifies that this key alone opens them.

Every model with sealed fields is included automatically. Tenants are listed by the census role, which may read hashes,
key ids, dates and counts; every row is opened and re-sealed inside its tenant's door by the application's role
(`memory.rotation.resealing`).
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import psycopg

from keys import steps
from keys.keyring import get_keyring
from keys.models import KeyRecord, Purpose
from keys.movers import KeyCount, Plan
from keys.retry_while_away import retry_while_away
from keys.runs import FailedRow, Progress
from memory.rotation.resealing import Batch, SealedTable, open_batch, reseal_batch, reseal_rows, sealed_tables
from memory.tenancy import census
from memory.tracing import job_span


class EncryptionKeyMover:
    """`keys.movers.Mover` for the encryption key: a tenant's rows are re-sealed in place, batch by batch.

    No row is missed: the first pass skips rows that a writer has locked; later passes visit the tenants whose rows
    still name another key, and wait for their writers; verifying opens every row under the new key alone, and re-seals
    those that name the right key but were sealed under another (drift).
    """

    purpose = Purpose.ENCRYPTION
    phase = "reseal"
    rows_name_tenants = False

    # --- Seen by the census -------------------------------------------------------------------------------------------
    def key_counts(self) -> list[KeyCount]:
        with census.census() as cursor:
            return [count for table in sealed_tables() for count in _count(cursor, table)]

    def not_among(self, key_ids: Collection[str]) -> list[str]:
        # Rows can name only keys that have sealed and that no verified rotation has retired. Mostly this process holds
        # all of them, and no table is read.
        used = KeyRecord.objects.filter(purpose=self.purpose, seals__gt=0, retired_at=None)
        suspects = list(used.exclude(key_id__in=key_ids).values_list("key_id", flat=True))
        return _found_in_rows(suspects) if suspects else []

    def tenants(self, *, after: str) -> Iterator[str]:
        return census.all_tenants(after=after)

    def tenants_to_move(self, key_id: str, *, after: str, again: bool) -> Iterator[str]:
        # In the first pass nearly every tenant has such rows, and no index finds those that do.
        return census.in_pages(_not_under, after=after, key_id=key_id) if again else self.tenants(after=after)

    # --- Done inside the tenant's door --------------------------------------------------------------------------------
    def prepare(self, progress: Progress) -> str:
        return ""

    def move(self, tenant: str, progress: Progress, *, wait: bool) -> None:
        def take(table: SealedTable, after: str | None) -> Batch:
            batch = retry_while_away(reseal_batch, tenant, table, after, progress.pace.rows, wait)
            steps.reached("batch re-sealed")
            return batch

        with job_span("job rotate encryption key"):
            _walk(progress, take)

    def clean_up(self, progress: Progress) -> None:
        """Nothing to do: a batch is a transaction, so a killed one leaves nothing behind."""

    def verify(self, tenant: str, progress: Progress) -> None:
        def take(table: SealedTable, after: str | None) -> Batch:
            batch = retry_while_away(open_batch, tenant, table, after, progress.pace.rows)
            steps.reached("batch verified")
            if not batch.drifted:
                return batch
            resealed = retry_while_away(reseal_rows, tenant, table, batch.drifted)
            steps.reached("drifted re-sealed")
            again = retry_while_away(open_batch, tenant, table, after, progress.pace.rows)
            return again._replace(failures=[*resealed.failures, *_not_opened(tenant, table, again.drifted)])

        _walk(progress, take)

    def say_failed(self, failures: int, left: Plan) -> str:
        return (
            f"{failures:,} rows open under no key that this process holds; every other row is under key"
            f" {left.to_key_id}. Restore or delete them, and keep the old key until then."
        )

    def say_done(self, key_id: str) -> str:
        return f"Every row opens under key {key_id} alone."


def _walk(progress: Progress, take: Callable[[SealedTable, str | None], Batch]) -> None:
    """Call `take` for every table of a tenant, batch by batch."""
    for table in sealed_tables().values():
        after: str | None = None
        while True:
            batch = take(table, after)
            progress.fail(*batch.failures)
            progress.advance(batch.done)
            if (after := batch.last) is None:
                break


def _not_opened(tenant: str, table: SealedTable, rows: Sequence[str]) -> Iterator[FailedRow]:
    for row in rows:
        shown = tenant[:8] if row == tenant else row
        key_id = get_keyring().sealing.key_id
        yield FailedRow(table.name, shown, tenant[:8], key_id, "does not open under the sealing key")


def _not_under(*, after: str, key_id: str) -> list[str]:
    parts = [
        f"SELECT DISTINCT user_hash FROM {table} WHERE enc_key_id <> %(key_id)s AND user_hash > %(after)s"  # noqa: S608
        for table in sealed_tables()
    ]
    with census.census() as cursor:
        cursor.execute(
            f"{' UNION '.join(parts)} ORDER BY user_hash LIMIT %(limit)s",
            {"key_id": key_id, "after": after, "limit": census.TENANTS_A_PAGE},
        )
        return [user_hash for (user_hash,) in cursor.fetchall()]


def _found_in_rows(key_ids: Sequence[str]) -> list[str]:
    """Those of these key ids that some row names. One EXISTS for each table and key: it stops at the first match."""
    found = " OR ".join(f"EXISTS (SELECT 1 FROM {table} WHERE enc_key_id = asked)" for table in sealed_tables())  # noqa: S608
    with census.census() as cursor:
        cursor.execute(f"SELECT asked FROM unnest(%s::text[]) AS asked WHERE {found}", [list(key_ids)])  # noqa: S608
        return [key_id for (key_id,) in cursor.fetchall()]


def _count(cursor: psycopg.Cursor, table: str) -> Iterator[KeyCount]:
    cursor.execute(
        "SELECT enc_key_id, sum(rows)::bigint, count(*) FROM"  # noqa: S608
        f" (SELECT enc_key_id, user_hash, count(*) AS rows FROM {table} GROUP BY 1, 2) AS per_tenant"
        " GROUP BY 1 ORDER BY 1"
    )
    for key_id, rows, tenants in cursor.fetchall():
        yield KeyCount(table, key_id, rows=int(rows), tenants=tenants, writes=int(rows))
