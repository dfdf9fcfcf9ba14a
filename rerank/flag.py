"""Whether to rerank: the environment's word, and under it the operators' switch.

The switch is read from the database at most every two seconds by each process and from no shared cache, so a change is
in force everywhere within those two seconds whatever CACHES says. When it cannot be read, the last known position
stands: availability fails open.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import transaction
from django.db.models.signals import post_save
from django.dispatch import receiver

from inference.engine.failures import describe
from rerank.models import SwitchChange

logger = logging.getLogger(__name__)

SECONDS_REMEMBERED = 2.0


def read_switch() -> bool:
    """The position of the switch in the database. On, until somebody first moves it."""
    latest = SwitchChange.objects.values_list("enabled", flat=True).first()
    return True if latest is None else latest


class Switch:
    """Remembers what `read` said for a moment. Thread-safe: the memory is one tuple, replaced whole."""

    def __init__(self, read: Callable[[], bool] = read_switch, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._memory: tuple[bool, float] = (True, float("-inf"))  # position, stale from

    def remembered(self) -> bool | None:
        """The position when it is known freshly enough, else None."""
        position, stale_from = self._memory
        return position if self._clock() < stale_from else None

    def last_known(self) -> bool:
        """The position that was read last, however long ago; on, before the first."""
        return self._memory[0]

    def is_on(self) -> bool:
        position = self.remembered()
        return self._refresh() if position is None else position

    def forget(self) -> None:
        """Read afresh next time."""
        self._memory = (self._memory[0], float("-inf"))

    def _refresh(self) -> bool:
        try:
            position = self._read()
        except Exception as error:
            position = self._memory[0]
            logger.warning("The rerank switch cannot be read, it stays %s: %s", position, describe(error))
        self._memory = (position, self._clock() + SECONDS_REMEMBERED)
        return position


switch = Switch()


@receiver(post_save, sender=SwitchChange)
def _forget_position(**kwargs: Any) -> None:
    """The process in which the switch was moved follows at once."""
    transaction.on_commit(switch.forget)


def who_decides() -> str:
    """One sentence: whether the environment or the switch is what decides, and how it stands."""
    if not settings.RERANK_ENABLED:
        return "The environment decides: RERANK_ENABLED=false keeps the reranker off here, whatever the switch says."
    position = "on" if read_switch() else "off"
    return f"The switch decides, for RERANK_ENABLED is true: it is {position}, in every process within two seconds."


def is_enabled() -> bool:
    return bool(settings.RERANK_ENABLED) and switch.is_on()


async def ais_enabled() -> bool:
    """As `is_enabled`, reading the database, when it must, outside the event loop's thread."""
    if not settings.RERANK_ENABLED:
        return False
    position = switch.remembered()
    return await sync_to_async(switch.is_on)() if position is None else position
