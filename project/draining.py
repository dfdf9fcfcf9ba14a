"""The flag of a process that shuts down: it still answers, but says that it wants no more requests."""

from collections.abc import Callable
from threading import Event

_begun = Event()
_told: list[Callable[[], object]] = []


def tell(call: Callable[[], object]) -> None:
    """Have `call` called when the shutdown begins. It must return at once."""
    _told.append(call)


def begin() -> None:
    """From now on `/readyz` is 503, and answers close their connections."""
    _begun.set()
    for call in _told:
        call()


def has_begun() -> bool:
    return _begun.is_set()
