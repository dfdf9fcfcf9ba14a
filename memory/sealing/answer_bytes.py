"""How many seals one answer may hold: MEMORY_MAX_ANSWER_BYTES bounds what a request fetches and opens."""

from collections.abc import Sequence
from itertools import accumulate

from django.conf import settings


def rows_within_budget(sizes: Sequence[int]) -> int:
    """How many of the first rows fit into an answer, given the bytes of each row's seals; the first always does."""
    fitting = sum(total <= settings.MEMORY_MAX_ANSWER_BYTES for total in accumulate(sizes))
    return max(fitting, min(1, len(sizes)))
