"""Finds the hash that a user's rows have now, while several HMAC keys are accepted.

A user is known under the hash whose `tenants` row exists. During a rotation of the HMAC key that may be the current
key's or an accepted one's, and it changes once, when the user is moved. Two advisory locks, both ending with the
transaction (so they work behind a transaction pooler), make the answer hold for as long as the door is open:

    the user's lock     shared by every door of the user; exclusive for what deletes a `tenants` row: the move to the
                        new hash and the erasure of the user
    the creation lock   taken by a door that finds the user under no hash, before it looks again; so of two first
                        writers, also in processes whose current keys differ, the second finds what the first made

Each is taken for every candidate hash, so that processes agree however their keys are ordered. With a single HMAC key
the hash is known, and only the `SET LOCAL` is sent.

This module runs no SQL itself: a `Resolution` is a generator that yields statements, is sent whether each returned a
row, and returns the user hash that the transaction names from then on.
"""

import re
from collections.abc import Generator, Iterable, Sequence

from memory.security import UserHash

SETTING = "app.user_hash"
# An empty setting names no user, and matches no row.
RESET = f"SET LOCAL {SETTING} = ''"
_USER_HASH = re.compile(r"[0-9a-f]{64}")

Resolution = Generator[str, bool | None, UserHash]


def resolution(candidates: Sequence[UserHash], *, exclusive: bool = False, named: UserHash | None = None) -> Resolution:
    """Find and name the hash a user is known under.

    `candidates`: the user's hashes, the current key's first; a user without a `tenants` row gets that one.
    `exclusive`: no other door of this user is open until the transaction ends. `named`: the hash that the transaction
    names already. Needs READ COMMITTED, Django's default.
    """
    current = candidates[0]
    if named is not None:
        if exclusive and len(candidates) > 1:
            yield user_lock_sql(candidates, exclusive=True)
        return named
    if len(candidates) == 1:
        yield set_local(current)
        return current
    for lock in (user_lock_sql(candidates, exclusive=exclusive), _creation_lock_sql(candidates)):
        known = yield from _first_known(candidates, lock)
        if known is not None:
            return known
    yield set_local(current)
    return current


def all_hashes(candidates: Sequence[UserHash], *, exclusive: bool, lock_timeout_ms: int) -> Resolution:
    """Name the current key's hash of a user whose every hash will be visited, and hold the user's lock meanwhile."""
    if lock_timeout_ms:
        yield f"SET LOCAL lock_timeout = {int(lock_timeout_ms)}"
    if len(candidates) > 1:
        yield user_lock_sql(candidates, exclusive=exclusive)
    yield set_local(candidates[0])
    return candidates[0]


def in_a_snapshot(candidates: Sequence[UserHash], *, seconds: float) -> Resolution:
    """Begin a snapshot that can only be read and ends after `seconds` (0: never), and name the hash that the user has
    in it.

    No lock is taken: in a snapshot a user has one hash, whatever becomes of it meanwhile, so neither a move nor an
    erasure of the user waits.
    """
    yield (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;"
        f" SET LOCAL transaction_timeout = {int(1000 * seconds)}"
    )
    if len(candidates) > 1:
        for candidate in candidates:
            if (yield f"{set_local(candidate)}; SELECT 1 FROM tenants WHERE user_hash = '{candidate}'"):  # noqa: S608
                return candidate
    yield set_local(candidates[0])
    return candidates[0]


def user_lock_sql(candidates: Iterable[str], *, exclusive: bool) -> str:
    """SQL that waits for the user's lock and holds it until the transaction ends."""
    function = "pg_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
    return _locks(function, (int(user_hash[:16], 16) for user_hash in candidates))


def set_local(user_hash: str) -> str:
    """SQL that names the user to row-level security.

    SET takes no parameters, so the value is checked here. Raises ValueError for anything but 64 lower-case hex.
    """
    if not _USER_HASH.fullmatch(user_hash):
        raise ValueError("A user hash is 64 lower-case hex characters.")
    return f"SET LOCAL {SETTING} = '{user_hash}'"


def _first_known(candidates: Sequence[UserHash], lock: str) -> Generator[str, bool | None, UserHash | None]:
    first = f"{lock}; "
    for candidate in candidates:
        # One round trip. Each statement of it has its own snapshot, so the look comes after the lock.
        if (yield f"{first}{set_local(candidate)}; SELECT 1 FROM tenants WHERE user_hash = '{candidate}'"):  # noqa: S608
            return candidate
        first = ""
    return None


def _creation_lock_sql(candidates: Iterable[str]) -> str:
    return _locks("pg_advisory_xact_lock", (int(user_hash[16:32], 16) for user_hash in candidates))


def _locks(function: str, numbers: Iterable[int]) -> str:
    # Sorted, or two processes could deadlock. Advisory locks take signed numbers.
    return "SELECT " + ", ".join(f"{function}({number - 2**63})" for number in sorted(numbers))
