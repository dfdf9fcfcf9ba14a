"""Whether this process is about to end: it still answers, but wants no more work."""

from threading import Event

_begun = Event()


def begin() -> None:
    """From now on `/readyz` is 503, and answers close their connections."""
    _begun.set()


def has_begun() -> bool:
    return _begun.is_set()
