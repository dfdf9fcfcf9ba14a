"""The engine of both rotations: moves every row to the current key, then verifies that this key alone opens them.

It knows no table: a `Mover` (`keys.movers`) knows how one tenant's rows move. The engine walks the tenants in the order
of their hashes and records how far it came. Stopped anywhere, by Ctrl-C, kill -9 or a lost database, the next run goes
on from there. Work done twice does no harm, because a mover takes only rows that still name another key.

    prepare     the mover checks that everything may move
    move        first every tenant, not waiting for writers; then, waiting, those with rows under another key
    clean up    what killed runs left behind
    verify      every row, under the current key alone
    conclude    old keys are retired, or the run says what is in the way

Rows that other processes write under another key meanwhile are moved and verified in another round, up to MAX_ROUNDS.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from django.db.models import Q
from django.db.models.functions import Now

from keys import heartbeat, steps, tallies
from keys.exceptions import MissingKeys, RotationRefused
from keys.held_keys import held_keys
from keys.models import KeyRecord, ProcessHeartbeat, RotationRun
from keys.movers import Mover, Plan
from keys.pace import Pace
from keys.retry_while_away import retry_while_away
from keys.runs import Progress, run_rotation

VERIFY = "verify"
MAX_ROUNDS = 5
LOOK_AT_PROCESSES_SECONDS = 10.0


def plan(mover: Mover) -> Plan:
    """What a rotation would do now. Raises RotationRefused or MissingKeys when it must not start."""
    held = held_keys(mover.purpose)
    planned = Plan(held.current, retry_while_away(mover.key_counts))
    unknown = [key_id for key_id in planned.from_key_ids if key_id not in held.all]
    if unknown:
        raise MissingKeys(
            f"Rows are under {', '.join(unknown)}, which this process does not hold. Put the key back into"
            f" {held.accepted_variable}; the rows are intact."
        )
    refuse_blind_processes(mover, planned)
    return planned


def refuse_blind_processes(mover: Mover, planned: Plan) -> None:
    """Raise RotationRefused while a live process could not read what is moved, or would not find its tenants."""
    held = held_keys(mover.purpose)
    needed = [planned.to_key_id, *(planned.from_key_ids if mover.rows_name_tenants else ())]
    blind = retry_while_away(heartbeat.lacking, mover.purpose, needed)
    if blind:
        raise RotationRefused(
            f"Some processes would not find or open what has moved: {_named(blind)}. They need {', '.join(needed)}: add"
            f" what they lack to their {held.accepted_variable} and restart them; a process that is gone is forgotten"
            " after a minute."
        )
    others = retry_while_away(heartbeat.with_another_current_key, mover.purpose, planned.to_key_id)
    if others and mover.rows_name_tenants:
        raise RotationRefused(
            f"Some processes still make new users under another key: {_named(others)}. Give them {planned.to_key_id}"
            f" as {held.variable} and restart them."
        )


def rotate(
    mover: Mover,
    *,
    started_by: str,
    pace: Pace | None = None,
    report: Callable[[RotationRun], None] | None = None,
    only: int | None = None,
) -> RotationRun:
    """Move every row to the current key and verify it; returns the run, finished or failed.

    `only` is the run that was asked for; without it an open run is resumed, or one begun. Raises RotationRefused,
    MissingKeys or LeaseTaken before anything is changed; later RotationRefused when a process turns up that lacks a
    key, LeaseLost when this one was silent too long, RotationCancelled. Whatever else stops it leaves the run
    interrupted, to be resumed by the next call.
    """
    planned = plan(mover)
    with run_rotation(
        mover.purpose,
        to_key_id=planned.to_key_id,
        from_key_ids=planned.from_key_ids,
        started_by=started_by,
        pace=pace,
        only=only,
        report=_also_looking_at_processes(mover, planned, report),
    ) as progress:
        steps.reached("run taken up")
        Rotation(mover, progress, planned.to_key_id).run()
    steps.reached("lease given back")
    return progress.run


class Rotation:
    """The passes of one mover towards one key, and the conclusion at their end."""

    def __init__(self, mover: Mover, progress: Progress, key_id: str) -> None:
        self._mover = mover
        self._progress = progress
        self._key_id = key_id

    def run(self) -> None:
        """Move, verify and conclude; a resumed run goes on where its record says that it stopped."""
        resumed, cursor = self._progress.run.phase, self._progress.run.tenant_cursor
        if obstacle := self._mover.prepare(self._progress):
            self._progress.give_up(obstacle)
        else:
            self._move_and_verify(resumed, cursor)
            self._conclude()
        steps.reached("run ended")

    def _move_and_verify(self, resumed: str, cursor: str) -> None:
        for number in range(MAX_ROUNDS):
            verifying = resumed == VERIFY and number == 0
            if not verifying:
                self.move(cursor if resumed == self._mover.phase and number == 0 else "", again=number > 0)
            if self._remaining() == 0:
                self._mover.clean_up(self._progress)
                self.verify(cursor if verifying else "")
                if self._remaining() == 0:
                    return
            if self._progress.too_many_failures:
                return

    def move(self, cursor: str = "", *, again: bool = False) -> None:
        """Move the tenants after `cursor`. With `again`, all those with rows left, waiting for their writers."""
        counted = self._count()
        self._progress.begin(self._mover.phase, total=counted.total, done=counted.total - counted.to_do, cursor=cursor)
        for tenant in self._each(self._mover.tenants_to_move(self._key_id, after=cursor, again=again)):
            self._mover.move(tenant, self._progress, wait=again)
        steps.reached("moving pass ended")

    def verify(self, cursor: str = "") -> None:
        """Verify the tenants after `cursor`."""
        # A resumed pass does not count what was verified before: its progress starts at zero.
        self._progress.begin(VERIFY, total=self._count().total, cursor=cursor)
        for tenant in self._each(self._mover.tenants(after=cursor)):
            self._mover.verify(tenant, self._progress)
        steps.reached("verifying pass ended")

    def _each(self, tenants: Iterator[str]) -> Iterator[str]:
        for tenant in tenants:
            yield tenant
            self._progress.advance(0, cursor=tenant)
            steps.reached("tenant done")
            self._progress.stop_if_cancelled()
            if self._progress.too_many_failures:
                return

    def _count(self) -> Plan:
        return Plan(self._key_id, retry_while_away(tallies.take, self._mover).counts)

    def _remaining(self) -> int:
        """Rows under another key, less those that have failed to move."""
        failed = sum(1 for failure in self._progress.failures if failure.key_id != self._key_id)
        return max(0, self._count().rows_left - failed)

    # --- The end ------------------------------------------------------------------------------------------------------
    def _conclude(self) -> None:
        left, failures = self._count(), len(self._progress.failures)
        others = retry_while_away(heartbeat.with_another_current_key, self._mover.purpose, self._key_id)
        if self._progress.too_many_failures:
            self._progress.give_up(
                f"Stopped at {failures:,} rows that failed, and there may be more. Keep the old key, mend what is"
                " listed, then run this again."
            )
        elif failures:
            self._progress.give_up(self._mover.say_failed(failures, left))
        elif left.rows_left or others:
            self._progress.give_up(
                f"Rows keep being written under another key ({left.rows_left:,} now){_colon_named(others)}. Give every"
                f" process {self._key_id} as its {held_keys(self._mover.purpose).variable}, then run this again."
            )
        else:
            self._retire()
            self._progress.finish(verified=True, message=self._say_done())

    def _retire(self) -> None:
        # Only keys that were in use: a new key, accepted but with no seals yet, is not retired. (An HMAC key has no
        # seals; it was in use when the run moved rows away from it.)
        used = Q(seals__gt=0) | Q(key_id__in=self._progress.run.from_key_ids)
        old = KeyRecord.objects.filter(used, purpose=self._mover.purpose, retired_at=None)
        retry_while_away(old.exclude(key_id=self._key_id).update, retired_at=Now())
        steps.reached("old keys retired")

    def _say_done(self) -> str:
        leaving, done = self._progress.run.from_key_ids, self._mover.say_done(self._key_id)
        return f"{done} {', '.join(leaving)} may be removed." if leaving else done


def _also_looking_at_processes(
    mover: Mover, planned: Plan, report: Callable[[RotationRun], None] | None
) -> Callable[[RotationRun], None]:
    """A `report` that also stops the run when a process turns up that lacks a key of the rotation."""
    looked_at = time.monotonic()

    def look(run: RotationRun) -> None:
        nonlocal looked_at
        if report:
            report(run)
        if run.state == RotationRun.State.RUNNING and time.monotonic() - looked_at > LOOK_AT_PROCESSES_SECONDS:
            looked_at = time.monotonic()
            refuse_blind_processes(mover, planned)

    return look


def _named(processes: Sequence[ProcessHeartbeat]) -> str:
    return ", ".join(map(str, processes))


def _colon_named(processes: Sequence[ProcessHeartbeat]) -> str:
    return f": {_named(processes)}" if processes else ""
