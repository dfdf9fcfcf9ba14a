"""Throw-away tenants: a benchmark works on users of its own, so it neither sees nor changes another user's memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from memory.access.identity import BENCHMARK_NAMESPACE
from memory.erasure import erase_user


def benchmark_user(name: int | str) -> str:
    """The canonical id of a throw-away user, `service:benchmark:<name>`."""
    return f"service:{BENCHMARK_NAMESPACE}:{name}"


@contextmanager
def throwaway_tenants(user_ids: Sequence[str], *, keep: bool = False) -> Iterator[Sequence[str]]:
    """The users, empty; erased again at the end, also after an error, unless they are to be kept."""
    erase(user_ids)
    try:
        yield user_ids
    finally:
        if not keep:
            erase(user_ids)


def erase(user_ids: Sequence[str]) -> None:
    """Erase benchmark users. Raises ValueError before anything is gone when one of them is not a benchmark's."""
    for user_id in user_ids:
        if not user_id.startswith(benchmark_user("")):
            raise ValueError("Only benchmark users are erased here.")
    for user_id in user_ids:
        erase_user(user_id=user_id)
