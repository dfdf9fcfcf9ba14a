"""Adds up what all processes have sealed under a key, and ends sealing before random nonces may repeat.

`settle_when_due()` is called by whoever has just committed sealed rows, on the connection that committed them: no other
is opened, and the counter's row is locked for one statement, never for somebody's transaction. Nonces are gone when a
transaction is rolled back, and so are counted all the same, by the next transaction.

A key that has sealed REFUSE_AT values is refused by every process from its next settlement on; a new process asks
before its first write (`open_account`). What processes seal until then is covered by the 2^20 below 2^32.
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
# Whatever holds the row for longer than this is no reason for a request to wait.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '1s'"
TELL = """
INSERT INTO keys_keyrecord AS record (key_id, purpose, seals) VALUES (%(key_id)s, 'encryption', %(seals)s)
ON CONFLICT (key_id) DO UPDATE SET seals = record.seals + EXCLUDED.seals, last_seen = now(), retired_at = NULL
RETURNING seals
"""

logger = logging.getLogger(__name__)
_failed_at = float("-inf")


def open_account(using: str = DEFAULT_DB_ALIAS) -> None:
    """Have this process know, before it seals, whether the sealing key may still seal."""
    nonces.open_account(get_keyring().sealing.key_id)
    settle_when_due(using)


def settle_when_due(using: str = DEFAULT_DB_ALIAS) -> None:
    """Settle when this process has sealed much since it last did."""
    if nonces.keys_used(due=True) and time.monotonic() - _failed_at >= RETRY_SECONDS:
        settle(using)


def settle(using: str = DEFAULT_DB_ALIAS) -> None:
    """Tell the database what this process has sealed. Inside a transaction: once it is committed.

    Raises nothing: what cannot be told now is told the next time, and a key that may seal no more is refused by the
    next seal.
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
    """The same over an async connection; one that is inside a transaction or a pipeline leaves it to the next."""
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
