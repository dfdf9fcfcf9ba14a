"""Outlasting a database that is away for a while: a restart, a failover."""

import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import psycopg
from django.db import InterfaceError, OperationalError, connection

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_SECONDS = 300.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
AWAY = (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError)

logger = logging.getLogger(__name__)


def outlast(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do `work`, again and again for five minutes while the database is away; then let its error out.

    `work` must be safe to repeat: a transaction of its own, or nothing but reads. Not inside a transaction.
    """
    give_up = time.monotonic() + PATIENCE_SECONDS
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return work(*args, **kwargs)
        except AWAY as error:
            if connection.in_atomic_block or time.monotonic() > give_up:
                raise
            logger.warning("The database is away (%s), waiting.", type(error).__name__)
            connection.close()
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
