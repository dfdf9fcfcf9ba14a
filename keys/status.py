"""Builds the report of the keys from the environment, rows, processes and rotation runs, with what is safe to do next.

No part of it comes from a status that a person sets. `key_status` and the admin's page show the same report.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from keys import heartbeat, leases, nonces, tallies
from keys.held_keys import held_keys
from keys.key_ages import old_keys
from keys.keyring import ENCRYPTION_KEY, ENCRYPTION_KEYS_ACCEPTED, HMAC_KEY, HMAC_KEYS_ACCEPTED, Keyring, get_keyring
from keys.models import KeyRecord, ProcessHeartbeat, Purpose, RotationRun
from keys.movers import KeyCount, Mover, mover_of
from keys.runs import LEASE
from keys.tallies import Tally

SEALING, HASHING, ACCEPTED, UNKNOWN, PAST = "sealing", "hashing", "accepted", "unknown", "past"


@dataclass(frozen=True)
class KeyFacts:
    """All that is known of one key. `state` is this process's view: sealing (or hashing), accepted, unknown (rows need
    it and it is not held) or past (no row needs it)."""

    key_id: str
    purpose: str
    state: str
    rows: dict[str, int]
    tenants: int
    seals: int
    first_seen: datetime | None
    last_seen: datetime | None
    processes: list[str]

    @property
    def row_count(self) -> int:
        """Rows of all tables."""
        return sum(self.rows.values())


@dataclass(frozen=True)
class KeyReport:
    """`run`, `hmac_run`: the last rotation of each kind. `attention`: what is wrong or unfinished. `next_steps`: what
    is safe to do and what is not, in plain words. `removable`: key ids that may leave the environment now.
    `counted_at`: when rows were counted, the older of both purposes; None when they never were."""

    keys: list[KeyFacts]
    processes: list[dict[str, Any]]
    run: RotationRun | None
    hmac_run: RotationRun | None = None
    counted_at: datetime | None = None
    attention: list[str] = field(default_factory=list)
    next_steps: list[str] = field(default_factory=list)
    removable: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report without objects."""
        return {
            "keys": [asdict(key) for key in self.keys],
            "processes": self.processes,
            "run": _run_facts(self.run) if self.run else None,
            "hmac_run": _run_facts(self.hmac_run) if self.hmac_run else None,
            "attention": self.attention,
            "next_steps": self.next_steps,
            "removable": self.removable,
        }


def key_report(*, count: bool = True) -> KeyReport:
    """The report as of now. Counting reads every row's key id; without `count` rows are as they were last counted.

    Raises ImproperlyConfigured without a census role (when it counts), LookupError without movers.
    """
    keyring = get_keyring()
    processes = list(heartbeat.live_processes())
    taken = [_tally(mover_of(purpose), count) for purpose in Purpose]
    keys = [
        facts
        for purpose, tally in zip(Purpose, taken, strict=True)
        for facts in _facts(purpose, tally.counts if tally else [], processes)
    ]
    run = RotationRun.objects.filter(kind=Purpose.ENCRYPTION).first()
    hmac_run = RotationRun.objects.filter(kind=Purpose.HMAC).first()
    judge = _Judge(keyring, keys, processes, run, hmac_run, leases.is_held(LEASE), all(taken))
    return KeyReport(
        keys=keys,
        processes=[_process_facts(process) for process in processes],
        run=run,
        hmac_run=hmac_run,
        counted_at=min((tally.counted_at for tally in taken if tally), default=None) if all(taken) else None,
        attention=list(judge.attention()),
        next_steps=list(judge.next_steps()),
        removable=judge.removable(),
    )


# --- Facts ----------------------------------------------------------------------------------------------------------
def _tally(mover: Mover, count: bool) -> Tally | None:
    return tallies.take(mover) if count else tallies.latest(mover.purpose)


def _facts(purpose: Purpose, counts: list[KeyCount], processes: list[ProcessHeartbeat]) -> Iterator[KeyFacts]:
    held = held_keys(purpose)
    records = {record.key_id: record for record in KeyRecord.objects.filter(purpose=purpose)}
    in_rows = {count.key_id for count in counts}
    holders = _holders(processes, purpose)
    states = {key_id: UNKNOWN if key_id in in_rows else PAST for key_id in {*held.all, *in_rows, *holders, *records}}
    states |= dict.fromkeys(held.accepted, ACCEPTED)
    states[held.current] = SEALING if purpose == Purpose.ENCRYPTION else HASHING
    order = [SEALING, HASHING, ACCEPTED, UNKNOWN, PAST]
    for key_id, state in sorted(states.items(), key=lambda item: (order.index(item[1]), item[0])):
        record = records.get(key_id)
        mine = [count for count in counts if count.key_id == key_id]
        yield KeyFacts(
            key_id=key_id,
            purpose=purpose.value,
            state=state,
            rows={count.table: count.rows for count in mine},
            tenants=max((count.tenants for count in mine), default=0),
            seals=record.seals if record else 0,
            first_seen=record.first_seen if record else None,
            last_seen=record.last_seen if record else None,
            processes=holders.get(key_id, []),
        )


def _holders(processes: list[ProcessHeartbeat], purpose: Purpose) -> dict[str, list[str]]:
    holders: dict[str, list[str]] = {}
    for process in processes:
        for key_id in process.holds(purpose):
            holders.setdefault(key_id, []).append(str(process))
    return holders


def _process_facts(process: ProcessHeartbeat) -> dict[str, Any]:
    return {
        "process": str(process),
        "sealing": process.sealing_key_id,
        "encryption": process.encryption_key_ids,
        "hmac_current": process.hmac_current_key_id,
        "hmac": process.hmac_key_ids,
        "started_at": process.started_at,
        "seen_at": process.seen_at,
    }


def _run_facts(run: RotationRun) -> dict[str, Any]:
    names = ("id", "state", "phase", "to_key_id", "from_key_ids", "rows_done", "rows_total", "rows_failed", "rate")
    return {name: getattr(run, name) for name in (*names, "verified", "message")}


# --- Judgement ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Judge:
    keyring: Keyring
    keys: list[KeyFacts]
    processes: list[ProcessHeartbeat]
    run: RotationRun | None
    hmac_run: RotationRun | None
    lease_held: bool
    counted: bool

    def attention(self) -> Iterator[str]:
        if not self.counted:
            yield "Rows have not been counted yet: a serving process does it in its first minute, or key_status."
        for key in self.keys:
            yield from self._attention_to(key)
        for old in old_keys():
            yield f"{old}: rotate it soon ({old.advice})."
        for process in self.processes:
            yield from self._attention_to_process(process)
        yield from self._attention_to_run(self.run, "rotate_encryption_key")
        yield from self._attention_to_run(self.hmac_run, "rotate_hmac_key")

    def next_steps(self) -> Iterator[str]:
        sealing = self.keyring.sealing.key_id
        yield f"New rows are sealed under {sealing}."
        if not self.counted:
            return
        for key in self._encryption(ACCEPTED):
            yield self._advice(key)
        for key in self._encryption(UNKNOWN):
            yield f"Put {key.key_id} back into {ENCRYPTION_KEYS_ACCEPTED}: {key.row_count:,} rows need it."
        for key in self._hmac(ACCEPTED):
            yield self._hmac_advice(key)
        if not any(key.state in (ACCEPTED, UNKNOWN) for key in self.keys):
            yield "Nothing to do. For the next rotation: manage.py generate_keys --next."

    def removable(self) -> list[str]:
        if not self.counted:
            return []
        encryption = [key for key in self._encryption(ACCEPTED) if self._is_leaving(key) and self._may_leave(key)]
        return [key.key_id for key in (*encryption, *filter(self._hmac_may_leave, self._hmac(ACCEPTED)))]

    # --- One key ----------------------------------------------------------------------------------------------------
    def _attention_to(self, key: KeyFacts) -> Iterator[str]:
        held = held_keys(Purpose(key.purpose))
        if key.state == UNKNOWN:
            yield (
                f"{key.row_count:,} rows are under {key.key_id}, which is not held here: put the key into"
                f" {held.accepted_variable}."
            )
        elif key.state == ACCEPTED and key.row_count and not self._is_rotating(key):
            yield f"{key.row_count:,} rows are still under {key.key_id}: run manage.py {held.command}."
        if key.state == SEALING and key.seals >= nonces.WARN_AT:
            yield (
                f"{key.key_id} has sealed {key.seals:,} values, half of what is safe and more: rotate it soon"
                " (manage.py generate_keys --next, then manage.py rotate_encryption_key)."
            )
        if key.row_count or key.state in (SEALING, HASHING):
            blind = [str(process) for process in self.processes if not _holds(process, key)]
            if blind:
                yield (
                    f"{', '.join(blind)} cannot use {key.key_id}: give it the key in {held.accepted_variable} and"
                    " restart it."
                )

    def _is_rotating(self, key: KeyFacts) -> bool:
        """Whether a rotation of its purpose is asked for, or under way."""
        run = self.run if key.purpose == Purpose.ENCRYPTION else self.hmac_run
        if run is None:
            return False
        return run.state == RotationRun.State.REQUESTED or (run.state == RotationRun.State.RUNNING and self.lease_held)

    def _advice(self, key: KeyFacts) -> str:
        if key.row_count and self._is_rotating(key):
            return f"Keep {key.key_id} until the rotation that has begun has moved its {key.row_count:,} rows."
        if key.row_count:
            return f"Keep {key.key_id}: {key.row_count:,} rows still need it."
        if not self._is_leaving(key):
            blind = [str(process) for process in self.processes if not _holds(process, key)]
            if blind:
                return f"Do not seal with {key.key_id} yet: {', '.join(blind)} could not read it."
            return (
                f"{key.key_id} is a coming key and every live process holds it ({len(self.processes)}): it is safe to"
                f" make it {ENCRYPTION_KEY}, with {self.keyring.sealing.key_id} in {ENCRYPTION_KEYS_ACCEPTED}."
            )
        if self._may_leave(key):
            return f"{key.key_id} may be removed from {ENCRYPTION_KEYS_ACCEPTED}: every row was opened without it."
        return f"Keep {key.key_id} until manage.py rotate_encryption_key has verified that no row needs it."

    def _is_leaving(self, key: KeyFacts) -> bool:
        """Whether it was in use before: a new key has sealed nothing yet."""
        return bool(key.seals) or (self.run is not None and key.key_id in self.run.from_key_ids)

    def _may_leave(self, key: KeyFacts) -> bool:
        run = self.run
        return (
            not key.row_count
            and run is not None
            and run.state == RotationRun.State.FINISHED
            and run.verified
            and run.to_key_id == self.keyring.sealing.key_id
            and all(process.sealing_key_id == run.to_key_id for process in self.processes)
        )

    def _hmac_advice(self, key: KeyFacts) -> str:
        if key.tenants:
            return f"Keep {key.key_id}: {key.tenants:,} users are still known under it."
        if self._hmac_may_leave(key):
            return f"{key.key_id} may be removed from {HMAC_KEYS_ACCEPTED}: every user was moved and verified."
        if self.hmac_run is not None and key.key_id in self.hmac_run.from_key_ids:
            return f"Keep {key.key_id} until manage.py rotate_hmac_key has moved and verified every user."
        blind = [str(process) for process in self.processes if not _holds(process, key)]
        if blind:
            return f"Do not make {key.key_id} the HMAC key yet: {', '.join(blind)} would not find users under it."
        return (
            f"{key.key_id} is a coming HMAC key and every live process holds it ({len(self.processes)}): it is safe to"
            f" make it {HMAC_KEY}, with {self.keyring.hmac_current.key_id} in {HMAC_KEYS_ACCEPTED}."
        )

    def _hmac_may_leave(self, key: KeyFacts) -> bool:
        run, current = self.hmac_run, self.keyring.hmac_current.key_id
        return (
            not key.tenants
            and run is not None
            and key.key_id in run.from_key_ids
            and run.state == RotationRun.State.FINISHED
            and run.verified
            and run.to_key_id == current
            and all(process.hmac_current_key_id == current for process in self.processes)
        )

    def _encryption(self, state: str) -> list[KeyFacts]:
        return self._under(Purpose.ENCRYPTION, state)

    def _hmac(self, state: str) -> list[KeyFacts]:
        return self._under(Purpose.HMAC, state)

    def _under(self, purpose: Purpose, state: str) -> list[KeyFacts]:
        return [key for key in self.keys if key.purpose == purpose and key.state == state]

    # --- Processes and the run --------------------------------------------------------------------------------------
    def _attention_to_process(self, process: ProcessHeartbeat) -> Iterator[str]:
        if process.sealing_key_id != self.keyring.sealing.key_id:
            yield (
                f"{process} seals under {process.sealing_key_id}, this process under {self.keyring.sealing.key_id}:"
                " give every process the same keys."
            )
        if process.hmac_current_key_id != self.keyring.hmac_current.key_id:
            yield (
                f"{process} makes new users under {process.hmac_current_key_id}, this process under"
                f" {self.keyring.hmac_current.key_id}: give every process the same keys."
            )

    def _attention_to_run(self, run: RotationRun | None, command: str) -> Iterator[str]:
        if run is None:
            return
        if run.state == RotationRun.State.FAILED:
            yield f"The last rotation failed: {run.message}"
        elif run.state == RotationRun.State.INTERRUPTED:
            yield f"A rotation was interrupted: run manage.py {command} to go on."
        elif run.state == RotationRun.State.RUNNING and not self.lease_held:
            yield f"A rotation stopped without a word: run manage.py {command} to go on."


def _holds(process: ProcessHeartbeat, key: KeyFacts) -> bool:
    return key.key_id in process.holds(Purpose(key.purpose))
