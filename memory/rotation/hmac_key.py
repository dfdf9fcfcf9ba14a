"""Moves tenants to a new HMAC key: users get new hashes, and their rows are rebuilt under these.

    check     every sealed user id is opened, before anything is moved
    move      tenant by tenant, in the order of the old hashes (`memory.rotation.tenant_move`)
    clear     delete the rows that killed runs left under orphaned hashes
    verify    every row of every tenant is opened and compared with the index (`memory.rotation.integrity`)

Until a tenant has moved, its user is served under the old hash (`memory.tenancy.current_hash`). So every serving
process must hold both keys while this runs; one that does not stops the rotation.
"""

from collections.abc import Collection, Iterator

from keys import steps
from keys.keyring import get_keyring
from keys.models import Purpose
from keys.movers import KeyCount, Plan
from keys.retry_while_away import retry_while_away
from keys.runs import FailedRow, Progress
from memory.exceptions import SealedMemoryError
from memory.rotation.findings import Finding
from memory.rotation.integrity import inspect_tenant, orphan_findings
from memory.rotation.orphans import clear_orphans
from memory.rotation.tenant_copy import RowsUnreadable
from memory.rotation.tenant_move import Move, move_tenant
from memory.rotation.user_ids import UserIdUnreadable, tenant_facts
from memory.security import UserHash, user_hashes
from memory.tenancy import census
from memory.tracing import job_span

CHECK, CLEAR = "check", "clear"


class HMACKeyMover:
    """`keys.movers.Mover` for the tenant HMAC key. `skip_unreadable`: move the others although some user ids do not
    open."""

    purpose = Purpose.HMAC
    phase = "move"
    rows_name_tenants = True

    def __init__(self, *, skip_unreadable: bool = False) -> None:
        self._skip_unreadable = skip_unreadable

    def key_counts(self) -> list[KeyCount]:
        """Tenants by HMAC key: the `tenants` row names the key, and moving it rewrites the tenant's chunks."""
        totals = census.totals_by_hmac_key()
        return [KeyCount("tenants", key_id, tenants, tenants, chunks) for key_id, (tenants, chunks) in totals.items()]

    def not_among(self, key_ids: Collection[str]) -> list[str]:
        return sorted(set(census.totals_by_hmac_key()) - set(key_ids))

    def tenants(self, *, after: str) -> Iterator[UserHash]:
        return census.all_tenants(after=after)

    def tenants_to_move(self, key_id: str, *, after: str, again: bool) -> Iterator[UserHash]:
        return census.all_tenants(after=after, not_under=key_id)

    def prepare(self, progress: Progress) -> str:
        """Open every sealed user id."""
        key_id = get_keyring().hmac_current.key_id
        progress.begin(CHECK, total=Plan(key_id, self.key_counts()).tenants_left)
        for tenant in census.all_tenants(not_under=key_id):
            try:
                _user_id(tenant)
            except UserIdUnreadable as error:
                _leave(tenant, str(error), progress, key_id=error.key_id)
            progress.advance(1)
        steps.reached("user ids checked")
        if not progress.failures or self._skip_unreadable:
            return ""
        return (
            f"{len(progress.failures)} tenants have a user id that does not open, and nothing was moved. Restore or"
            " erase them, or move the others with --skip-unreadable."
        )

    def move(self, tenant: UserHash, progress: Progress, *, wait: bool) -> None:
        if progress.has_failed("tenants", tenant[:8]):
            return
        try:
            facts = tenant_facts(tenant)
            if facts is not None:
                user_id = facts.open_user_id()
                move = Move(user_id, tenant, user_hashes(user_id)[0], facts.chunk_count)
                with job_span("job rotate HMAC key"):
                    move_tenant(move, batch=progress.pace.rows, advance=progress.advance)
        except RowsUnreadable as error:
            _leave(tenant, "stays under its old key, because some of its rows do not open", progress)
            progress.fail(*error.failures)
        except UserIdUnreadable as error:
            _leave(tenant, str(error), progress, key_id=error.key_id)
        except SealedMemoryError as error:
            _leave(tenant, str(error), progress)
        steps.reached("tenant moved")

    def clean_up(self, progress: Progress) -> None:
        """Delete the rows that a killed move left under a moved tenant's old hash; report other orphans."""
        orphans = set(retry_while_away(census.orphan_hashes))
        if orphans:
            progress.begin(CLEAR, total=sum(count.tenants for count in self.key_counts()))
            for tenant in census.all_tenants():
                for user_hash in _other_hashes(tenant):
                    if user_hash in orphans:
                        clear_orphans(user_hash, progress.pace.rows, progress.advance)
                progress.advance(1)
            progress.fail(*map(_failed_finding, orphan_findings(retry_while_away(census.orphan_hashes))))
        steps.reached("killed runs cleaned up")

    def verify(self, tenant: UserHash, progress: Progress) -> None:
        if tenant.hmac_key_id == get_keyring().hmac_current.key_id:
            seen = inspect_tenant(tenant, advance=progress.advance)
            progress.fail(*map(_failed_finding, seen.findings))
            steps.reached("tenant verified")

    def say_failed(self, failures: int, left: Plan) -> str:
        if left.tenants_left:
            return (
                f"{left.tenants_left} tenants could not be moved and are served under {', '.join(left.from_key_ids)} as"
                " before: keep that key accepted, mend what is listed, then run this again."
            )
        return (
            f"Every tenant is under key {left.to_key_id}, but {failures} things are not as they should be: see the list"
            " and manage.py verify_integrity. Keep the old key until they are mended."
        )

    def say_done(self, key_id: str) -> str:
        return f"Every user is known under key {key_id} alone, and every row was opened there."


def _user_id(tenant: UserHash) -> str | None:
    facts = tenant_facts(tenant)
    return None if facts is None else facts.open_user_id()


def _other_hashes(tenant: UserHash) -> list[UserHash]:
    try:
        user_id = _user_id(tenant)
    except UserIdUnreadable:
        return []
    return [] if user_id is None else [each for each in user_hashes(user_id) if each != tenant]


def _leave(tenant: UserHash, reason: str, progress: Progress, *, key_id: str = "") -> None:
    """Report a tenant as failed; this run does not try it again."""
    progress.fail(FailedRow("tenants", tenant[:8], tenant[:8], key_id or tenant.hmac_key_id, reason))


def _failed_finding(finding: Finding) -> FailedRow:
    table = finding.table if finding.row else "tenants"
    return FailedRow(
        table, finding.row or finding.tenant, finding.tenant, finding.key_id, f"{finding.kind}: {finding.detail}"
    )
