"""How much was tried in this run, by kind of attack."""

from collections import Counter

TRIED: Counter[str] = Counter()


def tried(kind: str, times: int = 1) -> None:
    """Count attempts of a kind. None of them came through, or its test has failed."""
    TRIED[kind] += times
