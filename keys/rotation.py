"""Rotating the encryption key: every row is re-sealed under the sealing key, then opened with that key alone.

The engine knows no table. It walks the tenants of the registered source in the order of their hashes, batch by batch,
each batch a short transaction of its own, and writes down how far it came. Stopped anywhere, by Ctrl-C, kill -9 or a
lost database, it goes on from there; what is done twice is done to the same end, because a batch takes only rows that
still name another key.

Three nets, one under the other:
1. The first pass skips rows that a writer has locked.
2. Further passes visit the tenants whose rows still name another key, and wait for their writers.
3. The verifying pass opens every row under the new key alone; a row that names the right key but was sealed under
   another (drift) is re-sealed there and opened again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from django.db.models.functions import Now

from keys import heartbeat, steps
from keys.exceptions import MissingKeys, RotationRefused
from keys.keyring import ENCRYPTION_KEYS_ACCEPTED, Keyring, get_keyring
from keys.models import KeyRecord, ProcessHeartbeat, Purpose, RotationRun
from keys.retry_while_away import retry_while_away
from keys.runs import FailedRow, Progress, run_rotation
from keys.sources import Batch, KeyCount, SealedSource, source

RESEAL, VERIFY = "reseal", "verify"
TENANTS_A_PAGE = 1_000
SMALLEST_BATCH = 20
MAX_ROUNDS = 5
MAX_FAILURES = 1_000


@dataclass(frozen=True)
class Pace:
    """How many rows one transaction takes, and how many rows a second at most (0: as fast as it goes)."""

    batch: int = 500
    max_rate: float = 0.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    @property
    def rows(self) -> int:
        """Rows of a batch: with a limit on the rate, small enough to spread over the second."""
        return min(self.batch, max(SMALLEST_BATCH, int(self.max_rate / 10))) if self.max_rate else self.batch

    def hold_back(self, rows: int, started: float) -> None:
        """Sleep until `rows` since `started` are no more than the rate allows."""
        if self.max_rate and (ahead := started + rows / self.max_rate - self.clock()) > 0:
            self.sleep(ahead)


@dataclass(frozen=True)
class Plan:
    """What a rotation would do."""

    to_key_id: str
    counts: list[KeyCount]

    @property
    def to_do(self) -> int:
        """Rows that name another key."""
        return sum(count.rows for count in self.counts if count.key_id != self.to_key_id)

    @property
    def total(self) -> int:
        """All rows."""
        return sum(count.rows for count in self.counts)

    @property
    def from_key_ids(self) -> list[str]:
        """The other keys that rows name."""
        return sorted({count.key_id for count in self.counts} - {self.to_key_id})


def plan() -> Plan:
    """What a rotation would do now. Raises RotationRefused or MissingKeys when it must not start."""
    keyring = get_keyring()
    counted = Plan(keyring.sealing.key_id, source().key_counts())
    _refuse_unknown_keys(counted, keyring)
    _refuse_blind_processes(counted.to_key_id)
    return counted


def rotate(
    *, started_by: str, pace: Pace | None = None, report: Callable[[RotationRun], None] | None = None
) -> RotationRun:
    """Re-seal every row under the sealing key and verify it; returns the run, finished or failed.

    Raises RotationRefused, MissingKeys or LeaseTaken before anything is changed, LeaseLost when this process was
    silent too long. Whatever else stops it leaves the run interrupted, to be resumed by the next call.
    """
    planned = plan()
    with run_rotation(
        Purpose.ENCRYPTION,
        to_key_id=planned.to_key_id,
        from_key_ids=planned.from_key_ids,
        started_by=started_by,
        report=report,
    ) as progress:
        steps.reached("run taken up")
        Rotation(source(), progress, pace or Pace(), planned.to_key_id).run()
    steps.reached("lease given back")
    return progress.run


class Rotation:
    """The passes over one source towards one key, and the judgement at their end."""

    def __init__(self, rows: SealedSource, progress: Progress, pace: Pace, key_id: str) -> None:
        self._source = rows
        self._progress = progress
        self._pace = pace
        self._key_id = key_id
        self._failed: dict[tuple[str, str], FailedRow] = {}

    def run(self) -> None:
        """Re-seal, verify, and say how it ended; goes on where the run record says that it stopped."""
        resumed, cursor = self._progress.run.phase, self._progress.run.tenant_cursor
        for number in range(MAX_ROUNDS):
            if number or resumed != VERIFY:
                self.reseal(cursor if resumed == RESEAL and not number else "", wait=number > 0)
            if self._remaining() == 0:
                self.verify(cursor if resumed == VERIFY and not number else "")
                if self._remaining() == 0:
                    break
            if len(self._failed) >= MAX_FAILURES:
                break
        self._conclude()

    @property
    def failures(self) -> list[FailedRow]:
        """The rows that opened under no key."""
        return list(self._failed.values())

    # --- The passes ---------------------------------------------------------------------------------------------------
    def reseal(self, cursor: str = "", *, wait: bool = False) -> None:
        """Re-seal what names another key, of the tenants behind `cursor`; with `wait`, of all that have such rows."""
        counted = self._count()
        self._progress.begin(RESEAL, total=counted.total, done=counted.total - counted.to_do, cursor=cursor)
        tenants = self._tenants_with_rows_left() if wait else self._tenants(cursor)
        self._visit(tenants, lambda tenant, table, after: self._reseal_batch(tenant, table, after, wait))
        steps.reached("re-sealing pass ended")

    def verify(self, cursor: str = "") -> None:
        """Open every row of the tenants behind `cursor` under the sealing key alone."""
        counted = self._count()
        # How much lies behind a cursor is not worth a count of its own: the bar of a resumed pass starts at zero.
        self._progress.begin(VERIFY, total=counted.total, cursor=cursor)
        self._visit(self._tenants(cursor), self._verify_batch)
        steps.reached("verifying pass ended")

    def _visit(self, tenants: Iterator[str], take: Callable[[str, str, str | None], Batch]) -> None:
        started, rows = self._pace.clock(), 0
        for tenant in tenants:
            for table in self._source.tables():
                after: str | None = None
                while True:
                    batch = take(tenant, table, after)
                    rows += batch.done
                    self._progress.advance(batch.done)
                    self._record(batch.failures)
                    self._pace.hold_back(rows, started)
                    if (after := batch.last) is None:
                        break
            self._progress.advance(0, cursor=tenant)
            if len(self._failed) >= MAX_FAILURES:
                return

    def _reseal_batch(self, tenant: str, table: str, after: str | None, wait: bool) -> Batch:
        batch = retry_while_away(self._source.reseal, tenant, table, after=after, limit=self._pace.rows, wait=wait)
        steps.reached("batch re-sealed")
        return batch

    def _verify_batch(self, tenant: str, table: str, after: str | None) -> Batch:
        batch = self._open_batch(tenant, table, after)
        steps.reached("batch verified")
        if not batch.strays:
            return batch
        mended = retry_while_away(self._source.reseal_rows, tenant, table, batch.strays)
        self._record(mended.failures)
        steps.reached("strays re-sealed")
        again = self._open_batch(tenant, table, after)
        return Batch(again.done, again.last, (), tuple(self._still_astray(tenant, table, again.strays)))

    def _open_batch(self, tenant: str, table: str, after: str | None) -> Batch:
        return retry_while_away(self._source.verify, tenant, table, after=after, limit=self._pace.rows)

    def _still_astray(self, tenant: str, table: str, rows: Sequence[str]) -> Iterator[FailedRow]:
        for row in rows:
            shown = tenant[:8] if row == tenant else row
            yield FailedRow(table, shown, tenant[:8], self._key_id, "does not open under the sealing key")

    # --- What there is ------------------------------------------------------------------------------------------------
    def _tenants(self, cursor: str) -> Iterator[str]:
        while page := retry_while_away(self._source.tenants, after=cursor, limit=TENANTS_A_PAGE):
            yield from page
            cursor = page[-1]

    def _tenants_with_rows_left(self) -> Iterator[str]:
        cursor = ""
        while page := retry_while_away(
            self._source.tenants_not_under, self._key_id, after=cursor, limit=TENANTS_A_PAGE
        ):
            yield from page
            cursor = page[-1]

    def _count(self) -> Plan:
        return Plan(self._key_id, retry_while_away(self._source.key_counts))

    def _remaining(self) -> int:
        """Rows under another key, but for those that were found not to open at all."""
        failed = sum(1 for failure in self._failed.values() if failure.key_id != self._key_id)
        return max(0, self._count().to_do - failed)

    def _record(self, failures: Sequence[FailedRow]) -> None:
        # A row met again on a later pass is one failure, not two; the first reason is the better one.
        new = [failure for failure in failures if (failure.table, failure.row) not in self._failed]
        self._failed |= {(failure.table, failure.row): failure for failure in new}
        self._progress.record_failures(new)

    # --- The end ------------------------------------------------------------------------------------------------------
    def _conclude(self) -> None:
        remaining = self._remaining()
        others = retry_while_away(lambda: heartbeat.sealing_otherwise(self._key_id))
        if self._failed:
            self._progress.give_up(
                f"{len(self._failed)} rows open under no key that this process holds; every other row is under key"
                f" {self._key_id}. Restore or delete them, and keep the old key until then."
            )
        elif remaining or others:
            self._progress.give_up(
                f"Rows keep being sealed under another key ({remaining} now){_named(others)}. Give every process"
                f" {self._key_id} as its sealing key, then run this again."
            )
        else:
            self._retire()
            self._progress.finish(verified=True, message=self._farewell())
        steps.reached("run ended")

    def _retire(self) -> None:
        used = KeyRecord.objects.filter(purpose=Purpose.ENCRYPTION, seals__gt=0, retired_at=None)
        retry_while_away(used.exclude(key_id=self._key_id).update, retired_at=Now())
        steps.reached("old keys retired")

    def _farewell(self) -> str:
        leaving = self._progress.run.from_key_ids
        if not leaving:
            return f"Every row opens under key {self._key_id} alone."
        return f"Every row opens under key {self._key_id} alone. {', '.join(leaving)} may be removed."


def _refuse_unknown_keys(counted: Plan, keyring: Keyring) -> None:
    unknown = [key_id for key_id in counted.from_key_ids if not keyring.opens(key_id)]
    if unknown:
        raise MissingKeys(
            f"Rows are sealed under {', '.join(unknown)}, which this process does not hold. "
            f"Put the key back into {ENCRYPTION_KEYS_ACCEPTED}; the rows are intact."
        )


def _refuse_blind_processes(key_id: str) -> None:
    blind = heartbeat.lacking(encryption=[key_id])
    if blind:
        raise RotationRefused(
            f"Some processes could not open what would be sealed under {key_id}{_named(blind)}."
            f" Add the key to their {ENCRYPTION_KEYS_ACCEPTED} and restart them; a process that is gone is forgotten"
            " after a minute."
        )


def _named(processes: Sequence[ProcessHeartbeat]) -> str:
    return f": {', '.join(map(str, processes))}" if processes else ""
