"""Measures what an attacker's rows do to a tenant's answers: thousands of copies of one of its questions.

One victim is answered by an exact scan, the other from the vector graph that holds the copies too; each with and
without the vector rotation, which turns every tenant's vectors differently.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from django.conf import settings
from django.test.utils import override_settings

from memory.benchmarks.command import progress
from memory.benchmarks.population import Memories, Population, store
from memory.benchmarks.query import product_search, settle
from memory.benchmarks.report import Report, Row, Target, at_most
from memory.benchmarks.tenants import benchmark_user, throwaway_tenants
from memory.index.tail import index_tail
from memory.search.search_parameters import Weights

SMALL_VICTIM = 1_000
BEYOND = 1_000  # rows above MEMORY_EXACT_SCAN_MAX, where the graph begins
SLOWER = 1.5

NOTE = (
    "The victim's questions are asked before and after another tenant stores the copies of one of them. changed ="
    " questions with another answer than before; p50_ms of all questions, ratio = after / before."
)


@dataclass(frozen=True)
class Planting:
    """How many copies of one question another tenant stores, at least, and how often the `questions` are asked."""

    at_least: int
    questions: int = 20
    rounds: int = 5
    verbosity: int = 1

    @property
    def copies(self) -> int:
        """Enough for the attacker's rows to be in the graph, which holds no rows of small tenants."""
        return max(self.at_least, settings.MEMORY_EXACT_SCAN_MAX + 1)


def measure_planted(plan: Planting) -> Report:
    """Ask victims of both sizes, rotation on and off, before and after the planting."""
    report = Report("benchmark_query --planted", notes=[f"{plan.copies:,} copies. {NOTE}"])
    for rotation in progress((True, False), "Planting", verbosity=plan.verbosity, unit="round"):
        with override_settings(MEMORY_VECTOR_ROTATION=rotation):
            report.results += _round(plan, rotation)
    report.targets = [target for row in report.results for target in _targets(row)]
    return report


def _round(plan: Planting, rotation: bool) -> list[Row]:
    sizes = (SMALL_VICTIM, settings.MEMORY_EXACT_SCAN_MAX + BEYOND)
    with throwaway_tenants([benchmark_user(f"planted-{name}") for name in (*sizes, "attacker")]) as users:
        *victims, attacker = users
        asking = [_victim(plan, user, size) for user, size in zip(victims, sizes, strict=True)]
        settle()
        before = [_asked(plan, *each) for each in asking]
        _plant(plan, attacker, asking[-1][1][0])
        after = [_asked(plan, *each) for each in asking]
        return [
            {
                "tenant_rows": size,
                "rotation": "on" if rotation else "off",
                "changed": sum(then != now for then, now in zip(answers, answers_after, strict=True)),
                "p50_ms": took,
                "p50_ms_planted": took_after,
                "ratio": took_after / took,
            }
            for size, (answers, took), (answers_after, took_after) in zip(sizes, before, after, strict=True)
        ]


def _victim(plan: Planting, user_id: str, size: int) -> tuple[str, list[tuple[str, np.ndarray]]]:
    population = Population(rows=size, tenants=1)
    memories = population.memories(0)
    _store(user_id, memories)
    return user_id, population.questions(0, memories, plan.questions)


def _plant(plan: Planting, user_id: str, question: tuple[str, np.ndarray]) -> None:
    text, vector = question
    _store(user_id, Memories([text] * plan.copies, np.tile(vector, (plan.copies, 1))))
    settle()


def _store(user_id: str, memories: Memories) -> None:
    """Store memories, and index all of them in the graph and the postings if the tenant is large enough."""
    store(user_id, memories)
    index_tail(user_id=user_id, limit=len(memories.texts))


def _asked(plan: Planting, user_id: str, questions: Sequence[tuple[str, np.ndarray]]) -> tuple[list[list[int]], float]:
    """Each question's answer, and the median of all in milliseconds; the first round warms up."""
    search = product_search(user_id, Weights.configured())
    answers = [search(*question) for question in questions]
    times = []
    for _ in range(plan.rounds):
        for question in questions:
            started = perf_counter()
            search(*question)
            times.append((perf_counter() - started) * 1000)
    return answers, float(np.median(times))


def _targets(row: Row) -> Iterator[Target]:
    victim = f"{row['tenant_rows']:,} rows, rotation {row['rotation']}"
    yield at_most(f"{victim}: changed answers", row["changed"], 0)
    yield at_most(f"{victim}: p50 with the copies / without", row["ratio"], SLOWER, "×")
