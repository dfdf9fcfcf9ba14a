"""Named steps of a rotation, so that a test can stop a process after any one of them."""

from collections.abc import Callable

observer: Callable[[str], None] | None = None
"""Set by tests alone."""


def reached(step: str) -> None:
    """Tell the observer, if a test has set one, that `step` is done."""
    if observer is not None:
        observer(step)
