"""The flag of a process that shuts down: it still answers, but says that it wants no more requests."""

from threading import Event

_begun = Event()


def begin() -> None:
    """From now on `/readyz` is 503, and answers close their connections."""
    _begun.set()


def has_begun() -> bool:
    return _begun.is_set()
