"""`retry_while_away`: retries work while the database is away, as during a restart or a failover.

Only a lost or refused connection is retried. A deadlock, a lock timeout, a full disk or too many connections is the
error of a database that answers: it is raised at once.
"""

import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import psycopg
from django.db import InterfaceError, OperationalError, connection

P = ParamSpec("P")
T = TypeVar("T")

GIVE_UP_AFTER_SECONDS = 300.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
ERRORS = (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError)
# Admin shutdown, crash shutdown, cannot connect now (it starts or stops), idle session timeout.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
CONNECTION_EXCEPTION = "08"
AWAY = frozenset({"57P01", "57P02", "57P03", "57P05"})

logger = logging.getLogger(__name__)


def retry_while_away(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `work`, and retry it for five minutes while the database is away; then raise its error.

    `work` must be safe to repeat: a transaction of its own, or nothing but reads. Inside a transaction nothing is
    retried.
    """
    give_up = time.monotonic() + GIVE_UP_AFTER_SECONDS
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return work(*args, **kwargs)
        except ERRORS as error:
            if not is_away(error) or connection.in_atomic_block or time.monotonic() > give_up:
                raise
            logger.warning("The database is away (%s), waiting.", type(error).__name__)
            connection.close()
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def is_away(error: BaseException) -> bool:
    """Whether an error says that the connection was lost or cannot be made, rather than that a statement failed."""
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    # An error without a code comes from the client, which found no server at the other end.
    return cause.sqlstate is None or cause.sqlstate.startswith(CONNECTION_EXCEPTION) or cause.sqlstate in AWAY
