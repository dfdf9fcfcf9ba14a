"""Telling failures of a backend apart, and describing them without quoting anyone's text."""

import traceback


def is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or any(kind.__name__ == "TimeoutException" for kind in type(error).__mro__)


def describe(error: BaseException) -> str:
    """Kind and place of an error. Not its message, which may quote a user's text."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {place}"
