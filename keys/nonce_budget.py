"""Sums the seals of all processes under each key, and refuses seals before random nonces may repeat.

To settle is to add this process's new seals to the sum in the database. `settle_when_due()` is called after each commit
of sealed rows, on the same connection and in a short transaction of its own: it opens no other connection, and no
request waits for another request's transaction. A rolled-back transaction has used its nonces too; they are counted by
the next settlement.

A key that has sealed REFUSE_AT values is refused by every process from its next settlement on; a process also asks when
it starts to serve and before it writes (`open_account`). What processes seal until then fits into the margin of 2^20
below 2^32.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, connections, transaction
from psycopg.pq import PipelineStatus, TransactionStatus

from keys import nonces
from keys.keyring import get_keyring

RETRY_SECONDS = 5.0
# A request waits no longer than this for the counter's row.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '1s'"
TELL = """
INSERT INTO keys_keyrecord AS record (key_id, purpose, seals) VALUES (%(key_id)s, 'encryption', %(seals)s)
ON CONFLICT (key_id) DO UPDATE SET seals = record.seals + EXCLUDED.seals, last_seen = now(), retired_at = NULL
RETURNING seals
"""

logger = logging.getLogger(__name__)
_failed_at = float("-inf")


def open_account(using: str = DEFAULT_DB_ALIAS) -> None:
    """Start to count under the sealing key, and learn from the database whether it may still seal."""
    nonces.open_account(get_keyring().sealing.key_id)
    settle_when_due(using)


def settle_when_due(using: str = DEFAULT_DB_ALIAS) -> None:
    """Settle when this process has sealed AHEAD / 2 values since it last did."""
    if nonces.keys_used(due=True) and time.monotonic() - _failed_at >= RETRY_SECONDS:
        settle(using)


def settle(using: str = DEFAULT_DB_ALIAS) -> None:
    """Add this process's new seals to the sum in the database; inside a transaction, after its commit.

    Raises no database error: seals that cannot be reported now are reported the next time. A key that may seal no more
    is refused at the next seal.
    """
    connection = connections[using]
    if connection.in_atomic_block:
        transaction.on_commit(lambda: settle_when_due(using), using=using)
    elif connection.get_autocommit():
        for key_id in nonces.keys_used(due=False):
            with _claimed(key_id) as parameters, transaction.atomic(using=using), connection.cursor() as cursor:
                cursor.execute(LOCK_TIMEOUT)
                cursor.execute(TELL, parameters)
                _judge(key_id, cursor.fetchone())


async def open_account_async(conn: psycopg.AsyncConnection[Any]) -> None:
    """As `open_account`, over an async connection."""
    nonces.open_account(get_keyring().sealing.key_id)
    await settle_when_due_async(conn)


async def settle_when_due_async(conn: psycopg.AsyncConnection[Any]) -> None:
    """As `settle_when_due`, over an async connection. Does nothing inside a transaction or a pipeline."""
    idle = conn.info.transaction_status == TransactionStatus.IDLE and conn.info.pipeline_status == PipelineStatus.OFF
    if not idle or time.monotonic() - _failed_at < RETRY_SECONDS:
        return
    for key_id in nonces.keys_used(due=True):
        with _claimed(key_id) as parameters:
            async with conn.transaction():
                await conn.execute(LOCK_TIMEOUT)
                cursor = await conn.execute(TELL, parameters)
                _judge(key_id, await cursor.fetchone())


@contextmanager
def _claimed(key_id: str) -> Iterator[dict[str, Any]]:
    global _failed_at
    seals = nonces.claim(key_id)
    try:
        yield {"key_id": key_id, "seals": seals}
    except (DatabaseError, InterfaceError, psycopg.Error) as error:
        nonces.unclaim(key_id, seals)
        _failed_at = time.monotonic()
        logger.warning("Seals under key %s not counted yet: %s", key_id, type(error).__name__)
    except BaseException:
        nonces.unclaim(key_id, seals)
        raise


def _judge(key_id: str, row: Any) -> None:
    if row[0] > nonces.REFUSE_AT:
        nonces.refuse(key_id)
