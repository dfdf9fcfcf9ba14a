"""Runs a generator of statements, sync or async, so that a sequence with decisions in it is defined once for both.

The generator yields a statement, is sent what `run` returned for it, and returns the outcome.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

Statement = TypeVar("Statement")
Found = TypeVar("Found")
Outcome = TypeVar("Outcome")


def run_steps(steps: Generator[Statement, Any, Outcome], run: Callable[[Statement], Found]) -> Outcome:
    """The outcome of the steps, each statement run by `run`."""
    found = None
    try:
        while True:
            found = run(steps.send(found))
    except StopIteration as end:
        return end.value


async def run_steps_async(
    steps: Generator[Statement, Any, Outcome], run: Callable[[Statement], Awaitable[Found]]
) -> Outcome:
    """As `run_steps`, with an async `run`."""
    found = None
    try:
        while True:
            found = await run(steps.send(found))
    except StopIteration as end:
        return end.value
