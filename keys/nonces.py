"""Counts the seals of this process under each key, in memory.

AES-GCM with random 96-bit nonces is safe for 2^32 messages under one key (NIST SP 800-38D, 8.3), summed over every
process that ever held the key. Here each process counts its own; `keys.nonce_budget` adds them up in the database. This
module imports no database, so that `seal()` needs none.

The sum in the database runs ahead: a process reports AHEAD seals more than it made, and reports again once half of them
are used. So a killed process has reported what it sealed, except what an unfinished transaction sealed beyond AHEAD.
"""

import os
import threading
from collections.abc import Iterator
from operator import length_hint

from keys.exceptions import NonceBudgetSpent

AHEAD = 2**10
WARN_AT = 2**31
REFUSE_AT = 2**32 - 2**20


class _Account:
    """The seals of this process under one key: those made, and those reported to the database (`told`)."""

    __slots__ = ("_all", "tickets", "told")

    def __init__(self) -> None:
        # To take a ticket is one call into C: threads need no lock for it, and it takes a tenth of a lock's time.
        self._all: Iterator[int] = iter(range(REFUSE_AT))
        self.tickets = self._all
        self.told = 0

    @property
    def made(self) -> int:
        return REFUSE_AT - length_hint(self._all)

    @property
    def spent(self) -> bool:
        return not length_hint(self.tickets)

    def close(self) -> None:
        self.tickets = iter(())

    @property
    def is_due(self) -> bool:
        return self.told - self.made < AHEAD // 2


_accounts: dict[str, _Account] = {}
_claiming = threading.Lock()


def spend(key_id: str) -> None:
    """Count one seal under a key before it is made. Raises NonceBudgetSpent once the key may seal no more."""
    try:
        next(_accounts[key_id].tickets)
    except KeyError:
        _accounts.setdefault(key_id, _Account())
        spend(key_id)
    except StopIteration:
        raise NonceBudgetSpent(
            f"Key {key_id} has sealed nearly 2^32 values, as many as are safe under one key. Make the next key"
            " the sealing one (`manage.py generate_keys --next`), then run `manage.py rotate_encryption_key`."
        ) from None


def keys_used(*, due: bool) -> list[str]:
    """The ids of the keys that this process counts seals of; with `due`, those whose seals should be reported now."""
    return [key_id for key_id, account in list(_accounts.items()) if account.is_due or not due]


def open_account(key_id: str) -> None:
    """Count under a key from now on, so that it is reported, and its budget known, before its first seal."""
    _accounts.setdefault(key_id, _Account())


def claim(key_id: str) -> int:
    """Take the seals to report now, so that no other thread reports them; `unclaim` gives them back after a failure."""
    with _claiming:
        account = _accounts[key_id]
        seals = account.made + AHEAD - account.told
        account.told += seals
        return seals


def unclaim(key_id: str, seals: int) -> None:
    """Give back seals that could not be reported."""
    with _claiming:
        _accounts[key_id].told -= seals


def refuse(key_id: str) -> None:
    """Let this process make no more seals under a key."""
    _accounts[key_id].close()


def discard(key_id: str) -> None:
    """Stop counting under a key that seals no more, such as a benchmark's own."""
    _accounts.pop(key_id, None)


def forget() -> None:
    """Start every count anew, as a new process does."""
    global _claiming
    _claiming = threading.Lock()
    _accounts.clear()


def _begin_as_child() -> None:
    """In a forked child, count anew: the parent reports its own seals. Keys that it refuses stay refused.

    The lock is made anew too, because a thread of the parent may have held it.
    """
    spent = [key_id for key_id, account in _accounts.items() if account.spent]
    forget()
    for key_id in spent:
        open_account(key_id)
        refuse(key_id)


os.register_at_fork(after_in_child=_begin_as_child)
