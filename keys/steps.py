"""The steps of a rotation, named, so that a test can stop a process after any one of them."""

from collections.abc import Callable

observer: Callable[[str], None] | None = None
"""Set by tests alone."""


def reached(step: str) -> None:
    """Say that `step` is done."""
    if observer is not None:
        observer(step)
