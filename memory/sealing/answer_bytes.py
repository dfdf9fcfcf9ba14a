"""How many seals one answer may hold: MEMORY_MAX_ANSWER_BYTES bounds what a request fetches and opens."""

from collections.abc import Iterable

from django.conf import settings


def rows_within_budget(sizes: Iterable[int]) -> int:
    """How many of the first rows fit into an answer, given the bytes of each row's seals; one at least, if any."""
    total = count = 0
    for size in sizes:
        total += size
        if count and total > settings.MEMORY_MAX_ANSWER_BYTES:
            break
        count += 1
    return count
