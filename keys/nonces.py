"""The nonce budget: how often one key may seal.

AES-GCM with random 96-bit nonces is safe for 2^32 messages under one key (NIST SP 800-38D, 8.3). Every seal is paid
for before it is made: a process buys a block of seals from the key's counter in the database and then counts down in
memory, so that `seal()` needs no database. The first block is small and each further one twice as large, up to 2^20:
a process that is killed loses less than it used, and thousands of short-lived ones do not eat the budget.

The counter is moved through a short connection of its own, never through the caller's transaction: a rollback would
take the payment back while the nonces are gone, and its row lock would make all sealing transactions wait in turn.

While the database is away a process seals on credit, 2^16 seals at most, and pays when it is back. The refusal at
2^32 - 2^20 leaves room for the credit of sixteen processes.
"""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg
from django.core.exceptions import ImproperlyConfigured

from database.roles import connect_as
from keys.exceptions import NonceBudgetSpent, NonceBudgetUnknown

FIRST_BLOCK = 2**12
LARGEST_BLOCK = 2**20
CREDIT = 2**16
CREDIT_STEP = 2**10
WARN_AT = 2**31
REFUSE_AT = 2**32 - 2**20
RETRY_SECONDS = 5.0

_PREPAY = """
INSERT INTO keys_keyrecord AS record (key_id, purpose, seals) VALUES (%(key_id)s, 'encryption', %(block)s)
ON CONFLICT (key_id) DO UPDATE
SET seals = record.seals + EXCLUDED.seals, last_seen = now(), retired_at = NULL
WHERE record.seals + EXCLUDED.seals <= %(limit)s
RETURNING seals
"""


@dataclass
class _Account:
    """What one process may still seal under one key, a ticket a seal."""

    key_id: str
    # Taking a ticket is one call into C, so threads need no lock for it, and a tenth of the time.
    tickets: Iterator[int] = field(default_factory=lambda: iter(()))
    block: int = FIRST_BLOCK
    owed: int = 0
    failed_at: float = float("-inf")


_accounts: dict[str, _Account] = {}
_paying = threading.Lock()


def spend(key_id: str) -> None:
    """Count one seal under a key before it is made.

    Raises NonceBudgetSpent once the key has sealed all it may, NonceBudgetUnknown when no seal can be paid for because
    the database has been away for too many of them.
    """
    try:
        next(_accounts[key_id].tickets)
    except (KeyError, StopIteration):
        _refill(key_id)


def _refill(key_id: str) -> None:
    """Pay for the seal that `spend` found no ticket for, and for more."""
    with _paying:
        account = _accounts.setdefault(key_id, _Account(key_id))
        if next(account.tickets, None) is None:  # else another thread paid while we waited
            bought = iter(range(_buy_or_lend(account)))
            next(bought)
            account.tickets = bought


def _buy_or_lend(account: _Account) -> int:
    """How many seals were paid for or lent."""
    if account.owed >= CREDIT or time.monotonic() - account.failed_at >= RETRY_SECONDS:
        try:
            return _buy(account)
        except (psycopg.Error, ImproperlyConfigured):
            account.failed_at = time.monotonic()
    return _lend(account)


def _buy(account: _Account) -> int:
    if not prepay(account.key_id, account.block + account.owed):
        raise NonceBudgetSpent(
            f"Key {account.key_id} has sealed nearly 2^32 values, as many as are safe under one key. Make the next key"
            " the sealing one (`manage.py generate_keys --next`), then run `manage.py rotate_encryption_key`."
        )
    bought, account.block = account.block, min(account.block * 2, LARGEST_BLOCK)
    account.owed, account.failed_at = 0, float("-inf")
    return bought


def _lend(account: _Account) -> int:
    if account.owed >= CREDIT:
        raise NonceBudgetUnknown("The database is away and too many seals are not counted yet: try again later.")
    account.owed += CREDIT_STEP
    return CREDIT_STEP


def prepay(key_id: str, seals: int) -> bool:
    """Move a key's counter by `seals`, committed at once; returns whether the budget still had them."""
    connection = connect_as("app")
    with connection, connection.cursor() as cursor:
        # Whatever holds the row for longer than this is no reason for a request to wait.
        cursor.execute("SET LOCAL lock_timeout = '1s'")
        cursor.execute(_PREPAY, {"key_id": key_id, "block": seals, "limit": REFUSE_AT})
        return cursor.fetchone() is not None


def forget() -> None:
    """Drop what this process has prepaid."""
    global _paying
    _accounts.clear()
    _paying = threading.Lock()


# The parent's block stays the parent's, and a lock may have been held at the moment of the fork.
os.register_at_fork(after_in_child=forget)
