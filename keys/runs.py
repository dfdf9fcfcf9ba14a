"""The record of a rotation: one run at a time, resumable, with progress that others can watch.

Both rotations use it:

    with run_rotation(Purpose.HMAC, to_key_id=…, from_key_ids=[…], started_by=operator()) as progress:
        progress.begin("move", total=rows)
        for batch in …:
            progress.advance(len(batch), cursor=user_hash)
        progress.finish(verified=True)

Leaving the block without `finish` or `give_up`, by Ctrl-C or any error, leaves the run interrupted: the next one with
the same target goes on at `progress.run.tenant_cursor`. After kill -9 the run still says "running", but its lease has
expired.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from django.db import DatabaseError, IntegrityError, transaction
from django.db.models.functions import Now

from keys import leases
from keys.exceptions import LeaseLost, RotationCancelled, RotationRefused
from keys.leases import HeldLease
from keys.models import Purpose, RotationRun
from keys.pace import Pace
from keys.retry_while_away import retry_while_away

LEASE = "rotation"
SAVE_EVERY_SECONDS = 0.5
FAILURES_SHOWN = 100
MAX_FAILURES = 1_000

State = RotationRun.State
# All that whoever works on a run writes: not by whom it is cancelled.
WRITTEN = [
    field.name
    for field in RotationRun._meta.concrete_fields
    if not field.primary_key and field.name not in ("cancelled_by", "requested_at")
]
CANCELLED_BY = "Cancelled by"
MIDST_OF_A_USER = (
    "It stopped in the midst of moving a user. Let a worker (manage.py rotate_hmac_key) go on with it, then cancel it."
)
AFTER_CANCELLING = "What has moved stays; keep the old key accepted. The next rotation moves the rest."


@dataclass(frozen=True)
class FailedRow:
    """A row that could not be rotated. `tenant` is the first 8 hex of its hash, `reason` holds no content."""

    table: str
    row: str
    tenant: str
    key_id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.table} {self.row} of tenant {self.tenant} (key {self.key_id}): {self.reason}"


class Progress:
    """A run in progress. Saves itself and renews the lease as it advances, at most twice a second."""

    def __init__(
        self,
        run: RotationRun,
        lease: HeldLease,
        report: Callable[[RotationRun], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace | None = None,
    ) -> None:
        self.run = run
        self.pace = pace or Pace()
        self._lease = lease
        self._report = report
        self._clock = clock
        self._failed: dict[tuple[str, str], FailedRow] = {}
        self._cancelled_by = ""
        self._saved_at = clock()
        self._restart_rates()

    def begin(self, phase: str, *, total: int, done: int = 0, cursor: str = "") -> None:
        """Enter a phase of `total` rows, of which `done` are done."""
        self.run.phase, self.run.rows_total, self.run.rows_done = phase, total, done
        self.run.tenant_cursor = cursor
        self._restart_rates()
        self.save()

    def advance(self, rows: int, *, cursor: str | None = None) -> None:
        """Count rows as done, and wait as long as the pace asks. Not inside a transaction.

        `cursor` is the tenant up to which, inclusive, all is done.
        """
        self.run.rows_done += rows
        # Rows written since the count would make the share exceed 1.
        self.run.rows_total = max(self.run.rows_total, self.run.rows_done)
        self._rated_rows += rows
        if cursor is not None:
            self.run.tenant_cursor = cursor
        if self._clock() - self._saved_at >= SAVE_EVERY_SECONDS:
            self.save()
        self.pace.hold_back(self._rated_rows, self._paced_from)

    def fail(self, *failures: FailedRow) -> None:
        """Count rows that failed, and record the first hundred by name.

        A row that fails again on a later pass counts once and keeps its first reason.
        """
        for failure in failures:
            self._failed.setdefault((failure.table, failure.row), failure)
        if failures:
            self.run.rows_failed = len(self._failed)
            self.run.failures = [asdict(failure) for failure in self.failures[:FAILURES_SHOWN]]

    def has_failed(self, table: str, row: str) -> bool:
        """Whether this row failed before."""
        return (table, row) in self._failed

    @property
    def failures(self) -> list[FailedRow]:
        """The rows that failed."""
        return list(self._failed.values())

    @property
    def too_many_failures(self) -> bool:
        """Whether the run should stop rather than list more."""
        return len(self._failed) >= MAX_FAILURES

    def save(self) -> None:
        """Save now and renew the lease. Raises LeaseLost; RotationCancelled when somebody wants a re-sealing to end."""
        now = self._clock()
        elapsed = now - self._rated_at
        if self._rated_rows and elapsed > 0:
            self.run.rate = self._rated_rows / elapsed
        self._saved_at = now
        retry_while_away(self._lease.renew)
        retry_while_away(self.run.save, update_fields=WRITTEN)
        if self._report:
            self._report(self.run)
        if self.run.state == State.RUNNING:
            self._cancelled_by = retry_while_away(_cancelled_by, self.run)
            if self.run.kind == Purpose.ENCRYPTION:
                self.stop_if_cancelled()

    def stop_if_cancelled(self) -> None:
        """Raise RotationCancelled when somebody wants the run to end.

        Re-sealing may stop at any batch. Moving users to another hash stops between two of them, or half of one's rows
        would lie under a hash that is nobody's.
        """
        if self._cancelled_by:
            raise RotationCancelled(f"{CANCELLED_BY} {self._cancelled_by}. {AFTER_CANCELLING}")

    def finish(self, *, verified: bool, message: str = "") -> None:
        """End the run as finished."""
        self._end(State.FINISHED, verified, message)

    def give_up(self, message: str) -> None:
        """End the run as failed. The next rotation starts from the beginning."""
        self._end(State.FAILED, False, message)

    def _restart_rates(self) -> None:
        self._rated_at, self._rated_rows = self._clock(), 0
        self._paced_from = self.pace.clock()

    def _end(self, state: RotationRun.State, verified: bool, message: str) -> None:
        self.run.state, self.run.verified, self.run.message = state, verified, message
        self.run.finished_at = Now()
        self.save()
        self.run.refresh_from_db()


def request_rotation(kind: Purpose, *, requested_by: str) -> RotationRun:
    """Ask for a rotation, which a `--watch` worker will pick up. Raises RotationRefused when one is open."""
    try:
        with transaction.atomic():
            return RotationRun.objects.create(kind=kind, requested_by=requested_by)
    except IntegrityError:
        raise RotationRefused(f"There is an open {kind.label} rotation already.") from None


def cancel_rotation(kind: Purpose, *, cancelled_by: str) -> RotationRun:
    """Close the open run, or have whoever works on it close it, within a second or after the user that is being moved.

    Rows that have moved stay moved; the others keep their key, which must stay accepted. Raises RotationRefused without
    an open run, and when one stopped in the midst of moving a user, which has to be ended first.
    """
    with transaction.atomic():
        run = RotationRun.objects.select_for_update().filter(kind=kind, state__in=RotationRun.OPEN).first()
        if run is None:
            raise RotationRefused(f"There is no open {kind.label} rotation.")
        run.cancelled_by = cancelled_by
        if run.state != State.RUNNING or not leases.is_held(LEASE):
            if _has_begun_to_move_users(run):
                raise RotationRefused(MIDST_OF_A_USER)
            _close_cancelled(run)
        run.save()
    return run


def _has_begun_to_move_users(run: RotationRun) -> bool:
    return run.kind == Purpose.HMAC and run.phase != ""


def _close_cancelled(run: RotationRun) -> None:
    run.state, run.finished_at = State.CANCELLED, Now()
    run.message = f"{CANCELLED_BY} {run.cancelled_by}. {AFTER_CANCELLING}"


def _close_what_was_cancelled(kind: Purpose) -> None:
    """Close a run whose worker died before it did so itself."""
    with transaction.atomic():
        left = RotationRun.objects.select_for_update().filter(kind=kind, state__in=RotationRun.OPEN)
        for run in left.exclude(cancelled_by=""):
            if not _has_begun_to_move_users(run):  # else it is ended after the user that it was moving
                _close_cancelled(run)
                run.save()


def _cancelled_by(run: RotationRun) -> str:
    return RotationRun.objects.filter(pk=run.pk).values_list("cancelled_by", flat=True).first() or ""


def open_run(kind: Purpose) -> RotationRun | None:
    """The run that is requested, running or interrupted, if there is one."""
    return RotationRun.objects.filter(kind=kind, state__in=RotationRun.OPEN).first()


@contextlib.contextmanager
def run_rotation(
    kind: Purpose,
    *,
    to_key_id: str,
    from_key_ids: Sequence[str],
    started_by: str,
    report: Callable[[RotationRun], None] | None = None,
    pace: Pace | None = None,
    only: int | None = None,
) -> Iterator[Progress]:
    """Hold the rotation lease and the open run of this kind, resumed or new, for the block.

    `only` is the run that was asked for: without it nothing is begun. Raises LeaseTaken, and RotationCancelled when the
    run that was asked for is open no more.
    """
    with leases.hold(LEASE) as lease:
        _close_what_was_cancelled(kind)
        run = _take_up(kind, to_key_id, from_key_ids, started_by, only)
        try:
            yield Progress(run, lease, report, pace=pace)
        finally:
            if run.state == State.RUNNING:
                _interrupt(run, lease)


@transaction.atomic  # whoever cancels meanwhile waits, and finds a run that is under way
def _take_up(
    kind: Purpose, to_key_id: str, from_key_ids: Sequence[str], started_by: str, only: int | None
) -> RotationRun:
    found = RotationRun.objects.select_for_update().filter(kind=kind, state__in=RotationRun.OPEN).first()
    if only is not None and (found is None or found.pk != only):
        raise RotationCancelled("The rotation was cancelled before it was taken up.")
    run = found or RotationRun(kind=kind, requested_by=started_by)
    if run.pk and run.to_key_id not in ("", to_key_id):
        # The current key changed since the run stopped: its progress towards the other key does not count for this one.
        run.state, run.message = State.FAILED, f"Superseded by a rotation to {to_key_id}."
        run.save()
        run = RotationRun(kind=kind, requested_by=started_by)
    run.from_key_ids = sorted({*run.from_key_ids, *from_key_ids} - {to_key_id})
    run.state, run.to_key_id, run.started_by, run.message = State.RUNNING, to_key_id, started_by, ""
    run.started_at = run.started_at or Now()
    if run.rows_failed:
        # Rows that failed come before the cursor: start again, or the run would finish without them.
        run.tenant_cursor = ""
    run.rows_failed, run.failures = 0, []
    run.save()
    run.refresh_from_db()
    return run


def _interrupt(run: RotationRun, lease: HeldLease) -> None:
    # Without a database the run stays "running", and its expired lease shows that no process works on it. Without the
    # lease another process has taken up the run.
    with contextlib.suppress(DatabaseError, LeaseLost):
        lease.renew()
        run.cancelled_by = _cancelled_by(run)
        if run.cancelled_by:
            _close_cancelled(run)
        else:
            run.state = State.INTERRUPTED
        run.save(update_fields=WRITTEN)
