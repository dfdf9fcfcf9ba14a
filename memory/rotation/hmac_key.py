"""Rotating the tenant HMAC key: every user is moved to the hash, and every row to the form, that the new key makes.

    check     every sealed user id is opened, before anything is moved
    move      tenant by tenant, in the order of the old hashes (`memory.rotation.tenant_move`)
    clear     delete the rows that killed runs left under orphaned hashes
    verify    every row of every tenant is opened and compared with the index (`memory.rotation.integrity`)

Until a tenant has moved, its user is served under the old hash (`memory.tenancy.current_hash`), so every serving
process must hold both keys for as long as this runs; one that does not stops it.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from django.db.models.functions import Now

from keys import heartbeat, steps
from keys.exceptions import MissingKeys, RotationRefused
from keys.keyring import HMAC_KEY, HMAC_KEYS_ACCEPTED, get_keyring
from keys.models import KeyRecord, ProcessHeartbeat, Purpose, RotationRun
from keys.retry_while_away import retry_while_away
from keys.runs import FailedRow, Progress, run_rotation
from memory.exceptions import SealedMemoryError
from memory.rotation.integrity import Finding, UserIdUnreadable, inspect_tenant, orphan_findings, read_user_id
from memory.rotation.tenant_copy import RowsUnreadable
from memory.rotation.tenant_move import Move, clear_orphans, move_tenant
from memory.security import UserHash, user_hashes
from memory.tenancy import census
from memory.tenancy.census import TenantFacts

CHECK, MOVE, CLEAR, VERIFY = "check", "move", "clear", "verify"
BATCH = 500
MAX_ROUNDS = 5
LOOK_AT_PROCESSES_SECONDS = 10.0


@dataclass(frozen=True)
class Plan:
    """What a rotation would do: tenants and chunks under other HMAC keys than the current one, and in all."""

    to_key_id: str
    totals: dict[str, tuple[int, int]]

    @property
    def from_key_ids(self) -> list[str]:
        """The other keys that tenants name."""
        return sorted(set(self.totals) - {self.to_key_id})

    @property
    def tenants(self) -> int:
        """Tenants to move."""
        return sum(self.totals[key_id][0] for key_id in self.from_key_ids)

    @property
    def rows(self) -> int:
        """Chunks of the tenants to move."""
        return sum(self.totals[key_id][1] for key_id in self.from_key_ids)

    @property
    def all_rows(self) -> int:
        """Chunks of all tenants."""
        return sum(chunks for _, chunks in self.totals.values())


def plan() -> Plan:
    """What a rotation would do now. Raises RotationRefused or MissingKeys when it must not start."""
    keyring = get_keyring()
    planned = Plan(keyring.hmac_current.key_id, retry_while_away(census.totals_by_hmac_key))
    unknown = [key_id for key_id in planned.from_key_ids if key_id not in {key.key_id for key in keyring.hashing}]
    if unknown:
        raise MissingKeys(
            f"Tenants are under {', '.join(unknown)}, which this process does not hold. Put the key back into"
            f" {HMAC_KEYS_ACCEPTED}; the rows are intact."
        )
    refuse_blind_processes(planned)
    return planned


def refuse_blind_processes(planned: Plan) -> None:
    """Raise RotationRefused while a live process does not hold every key, or makes new users under another one."""
    blind = retry_while_away(lambda: heartbeat.lacking(hmac=[planned.to_key_id, *planned.from_key_ids]))
    if blind:
        raise RotationRefused(
            f"Some processes would not find users under both keys: {_named(blind)}. They need"
            f" {', '.join([planned.to_key_id, *planned.from_key_ids])}: add what they lack to their"
            f" {HMAC_KEYS_ACCEPTED} and restart them; a process that is gone is forgotten after a minute."
        )
    others = retry_while_away(lambda: [each for each in heartbeat.live_processes() if _hashes_otherwise(each, planned)])
    if others:
        raise RotationRefused(
            f"Some processes still make new users under another key: {_named(others)}. Give them {planned.to_key_id}"
            f" as {HMAC_KEY} and restart them."
        )


def rotate(
    *,
    started_by: str,
    batch: int = BATCH,
    skip_unreadable: bool = False,
    report: Callable[[RotationRun], None] | None = None,
) -> RotationRun:
    """Move every tenant to the current HMAC key and verify it; returns the run, finished or failed.

    `batch`: rows a transaction, and up to how many a tenant moves in one. `skip_unreadable`: move the others although
    some user ids do not open. Raises RotationRefused, MissingKeys or LeaseTaken before anything is changed; later
    RotationRefused when a process turns up that lacks a key, LeaseLost when this one was silent too long. Whatever
    stops it leaves the run interrupted, to be resumed by the next call.
    """
    planned = plan()
    with run_rotation(
        Purpose.HMAC,
        to_key_id=planned.to_key_id,
        from_key_ids=planned.from_key_ids,
        started_by=started_by,
        report=report,
    ) as progress:
        steps.reached("run taken up")
        _Rotation(planned, progress, batch, skip_unreadable).run()
    steps.reached("lease given back")
    return progress.run


@dataclass
class _Rotation:
    planned: Plan
    progress: Progress
    batch: int
    skip_unreadable: bool
    _failed: dict[tuple[str, str], FailedRow] = field(default_factory=dict)
    _stuck: set[str] = field(default_factory=set)
    _looked_at: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        unreadable = self._check()
        steps.reached("user ids checked")
        if unreadable and not self.skip_unreadable:
            self.progress.give_up(
                f"{unreadable} tenants have a user id that does not open, and nothing was moved. Restore or erase"
                " them, or move the others with --skip-unreadable."
            )
            return
        # A user that was made under an old key meanwhile is met in the next round.
        for _ in range(MAX_ROUNDS):
            if not self._move():
                break
        self._clear()
        steps.reached("leftovers cleared")
        self._verify()
        steps.reached("verified")
        self._conclude()

    # --- The passes ---------------------------------------------------------------------------------------------------
    def _check(self) -> int:
        self.progress.begin(CHECK, total=self.planned.tenants)
        for tenant in self._to_move():
            try:
                read_user_id(tenant)
            except UserIdUnreadable as error:
                self._leave(tenant, str(error), tenant.enc_key_id)
            self._advance(1)
        return len(self._stuck)

    def _move(self) -> int:
        """One round over the tenants under other keys; returns how many were tried."""
        now = Plan(self.planned.to_key_id, retry_while_away(census.totals_by_hmac_key))
        self.progress.begin(MOVE, total=now.all_rows, done=now.all_rows - now.rows)
        tried = 0
        for tenant in self._to_move():
            if tenant.user_hash in self._stuck:
                continue
            tried += 1
            self._move_one(tenant)
            self.progress.advance(0, cursor=tenant.user_hash)
            steps.reached("tenant moved")
        return tried

    def _move_one(self, tenant: TenantFacts) -> None:
        try:
            user_id = read_user_id(tenant)
            if user_id is not None:
                old = UserHash(tenant.user_hash, tenant.hmac_key_id)
                new = user_hashes(user_id)[0]
                move_tenant(Move(user_id, old, new, tenant.chunk_count), batch=self.batch, advance=self._advance)
        except RowsUnreadable as error:
            reason = "stays under its old key, because some of its rows do not open"
            self._leave(tenant, reason, tenant.hmac_key_id)
            self._fail(*error.failures)
        except SealedMemoryError as error:
            self._leave(tenant, str(error), tenant.hmac_key_id)

    def _clear(self) -> None:
        """Delete the rows that a killed move left under a moved tenant's old hash. Other orphans are only reported."""
        orphans = set(retry_while_away(census.orphan_hashes))
        if not orphans:
            return
        self.progress.begin(CLEAR, total=sum(tenants for tenants, _ in self.planned.totals.values()))
        for tenant in self._all_tenants():
            for user_hash in self._other_hashes(tenant):
                if user_hash in orphans:
                    clear_orphans(user_hash, self.batch)
            self._advance(1)

    def _verify(self) -> None:
        now = Plan(self.planned.to_key_id, retry_while_away(census.totals_by_hmac_key))
        self.progress.begin(VERIFY, total=now.all_rows)
        for tenant in self._all_tenants():
            if tenant.hmac_key_id == self.planned.to_key_id:
                self._fail(*map(_failed_finding, inspect_tenant(tenant, advance=self._advance).findings))
                steps.reached("tenant verified")
        self._fail(*map(_failed_finding, orphan_findings(retry_while_away(census.orphan_hashes))))

    # --- What there is ------------------------------------------------------------------------------------------------
    def _to_move(self) -> Iterator[TenantFacts]:
        return census.all_tenants(not_under=self.planned.to_key_id)

    def _all_tenants(self) -> Iterator[TenantFacts]:
        return census.all_tenants()

    def _other_hashes(self, tenant: TenantFacts) -> Iterable[UserHash]:
        try:
            user_id = read_user_id(tenant)
        except UserIdUnreadable:
            return ()
        return () if user_id is None else [each for each in user_hashes(user_id) if each != tenant.user_hash]

    def _advance(self, rows: int) -> None:
        self.progress.advance(rows)
        now = time.monotonic()
        if now - self._looked_at > LOOK_AT_PROCESSES_SECONDS:
            self._looked_at = now
            refuse_blind_processes(self.planned)

    def _leave(self, tenant: TenantFacts, reason: str, key_id: str) -> None:
        """Report a tenant and do not try it again in this run."""
        prefix = tenant.user_hash[:8]
        self._stuck.add(tenant.user_hash)
        self._fail(FailedRow("tenants", prefix, prefix, key_id, reason))

    def _fail(self, *failures: FailedRow) -> None:
        new = [failure for failure in failures if (failure.table, failure.row) not in self._failed]
        self._failed |= {(failure.table, failure.row): failure for failure in new}
        self.progress.record_failures(new)

    # --- The end ------------------------------------------------------------------------------------------------------
    def _conclude(self) -> None:
        left = Plan(self.planned.to_key_id, retry_while_away(census.totals_by_hmac_key))
        if left.tenants:
            self.progress.give_up(
                f"{left.tenants} tenants could not be moved and are served under {', '.join(left.from_key_ids)} as"
                " before: keep that key accepted, mend what is listed, then run this again."
            )
        elif self._failed:
            self.progress.give_up(
                f"Every tenant is under key {self.planned.to_key_id}, but {len(self._failed)} things are not as they"
                " should be: see the list and manage.py verify_integrity. Keep the old key until they are mended."
            )
        else:
            self._retire()
            self.progress.finish(verified=True, message=self._farewell())
        steps.reached("run ended")

    def _retire(self) -> None:
        old = KeyRecord.objects.filter(purpose=Purpose.HMAC, key_id__in=self.progress.run.from_key_ids, retired_at=None)
        retry_while_away(old.update, retired_at=Now())

    def _farewell(self) -> str:
        leaving = self.progress.run.from_key_ids
        ready = f"Every user is known under key {self.planned.to_key_id} alone, and every row was opened there."
        return f"{ready} {', '.join(leaving)} may be removed." if leaving else ready


def _hashes_otherwise(process: ProcessHeartbeat, planned: Plan) -> bool:
    return process.hmac_current_key_id != planned.to_key_id


def _failed_finding(finding: Finding) -> FailedRow:
    table = "memory_chunks" if finding.row else "tenants"
    return FailedRow(
        table, finding.row or finding.tenant, finding.tenant, finding.key_id, f"{finding.kind}: {finding.detail}"
    )


def _named(processes: Iterable[ProcessHeartbeat]) -> str:
    return ", ".join(map(str, processes))
