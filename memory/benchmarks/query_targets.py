"""The targets for recall and latency of questions, on rows as `memory.benchmarks.query` makes them."""

from collections.abc import Iterator, Sequence

import numpy as np

from memory.benchmarks.query import HYBRID, PLAIN, PRODUCT
from memory.benchmarks.report import Row, Target, at_least, less_than
from memory.search.retrieval import CANDIDATES

RECALL = f"recall@{CANDIDATES}"
SMALL, MEDIUM, LARGE = 5_000, 20_000, 100_000
# p95 in ms of tenants up to 1,000 rows or so, and of larger ones.
FAST_ROWS, FAST_MS, SLOW_MS = 2_000, 5, 30
OURS = "sealed memory"


def targets(rows: Sequence[Row]) -> list[Target]:
    """Every target for which there are measured rows."""
    by_key = {(row["tenant_rows"], row["engine"]): row for row in rows if "engine" in row}
    sizes = sorted({size for size, _ in by_key})
    found: list[Target] = []
    for size in sizes:
        dense, hybrid = by_key[size, PRODUCT], by_key[size, HYBRID]
        found.append(_recall(size, dense, hybrid))
        found.append(less_than(f"{size:,} rows: p95 of hybrid", hybrid["p95_ms"], _bound_ms(size), "ms"))
        if (size, PLAIN) in by_key:
            found.append(_overhead(size, dense, by_key[size, PLAIN]))
    return found + list(_peers(by_key, sizes))


def _recall(size: int, dense: Row, hybrid: Row) -> Target:
    if size <= MEDIUM:
        return at_least(f"{size:,} rows: recall of hybrid", hybrid[RECALL], 1.0 if size <= SMALL else 0.99)
    return at_least(f"{size:,} rows: recall of the dense part", dense[RECALL], 0.97)


def _bound_ms(size: int) -> int:
    return FAST_MS if size <= FAST_ROWS else SLOW_MS


def _overhead(size: int, dense: Row, plain: Row) -> Target:
    """Over plain pgvector: 1.3 times its median or half a millisecond more, whichever is more."""
    bound = max(1.3 * plain["p50_ms"], plain["p50_ms"] + 0.5)
    shown = less_than(f"{size:,} rows: p50, plain pgvector {plain['p50_ms']:.2f} ms", dense["p50_ms"], bound, "ms")
    return Target(shown.name, shown.value, "ms", f"≤ {bound:.2f} (1.3 × or + 0.5 ms)", dense["p50_ms"] <= bound)


def _peers(by_key: dict[tuple[int, str], Row], sizes: Sequence[int]) -> Iterator[Target]:
    names = dict.fromkeys(name for _, name in by_key if not name.startswith(OURS) and name != PLAIN)
    for name in names:
        ratios = [by_key[size, PRODUCT]["p50_ms"] / by_key[size, name]["p50_ms"] for size in sizes]
        better = [by_key[size, PRODUCT][RECALL] >= by_key[size, name][RECALL] - 0.001 for size in sizes]
        value = float(np.median(ratios))
        shown = less_than(f"dense beside {name}: median over sizes of p50 / its p50", value, 1, "×")
        # Faster counts only at equal or better recall.
        yield shown if all(better) else Target(f"{shown.name} (at lower recall)", shown.value, "×", shown.bound, False)
