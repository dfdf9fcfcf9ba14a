"""The tables of an evaluation: quality by mode and by type of question, differences with intervals, targets."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from memory.benchmarks.asking import Run
from memory.benchmarks.beir import Query
from memory.benchmarks.ranking import Grades, difference, ndcg, recall, recall_all, recall_any, reciprocal_rank
from memory.benchmarks.report import Row, Target, at_least, more_than
from memory.benchmarks.timing import latencies
from memory.search.retrieval import CANDIDATES

DEPTHS = (5, 10, CANDIDATES)
REFERENCE = "hybrid"
# What the retrieval of this product has to reach, by collection: nDCG@10 of hybrid.
HYBRID_NDCG = {"scifact": 0.73}

Measure = Callable[[Sequence[str], Grades], float]


def _at(measure: Callable[[Sequence[str], Grades, int], float], depth: int) -> Measure:
    return lambda ranked, judged: measure(ranked, judged, depth)


MEASURES: dict[str, Measure] = {
    "ndcg@10": ndcg,
    "mrr": reciprocal_rank,
    **{f"recall@{depth}": _at(recall, depth) for depth in DEPTHS},
    **{f"recall_any@{depth}": _at(recall_any, depth) for depth in DEPTHS},
    **{f"recall_all@{depth}": _at(recall_all, depth) for depth in DEPTHS},
}
MEASURES_BY_TYPE = ("ndcg@10", "mrr", "recall@10", "recall_any@10", "recall_all@10")


def quality(run: Run, queries: Sequence[Query]) -> Row:
    """One mode: means over the queries, and latencies in ms (None where nothing was timed)."""
    shares = {f"chunks@{CANDIDATES}": _mean(run.chunk_shares) if run.chunk_shares else None}
    timed = latencies(run.milliseconds, 50, 95) if run.milliseconds else {"p50": None, "p95": None}
    return {
        "mode": run.mode,
        "queries": len(queries),
        **{name: _mean(scores(run, queries, name)) for name in MEASURES},
        **shares,
        **{f"{name}_ms": value for name, value in timed.items()},
    }


def by_type(runs: Sequence[Run], queries: Sequence[Query]) -> list[Row]:
    """Each type of question in each mode; none where no query names its type."""
    types = sorted({query.type for query in queries if query.type is not None})
    return [_of_type(name, run, queries) for name in types for run in runs]


def differences(runs: Sequence[Run], queries: Sequence[Query]) -> list[Row]:
    """How far each mode's nDCG@10 is from hybrid's, with the 95% interval of a paired bootstrap over the queries."""
    of_mode = {run.mode: scores(run, queries, "ndcg@10") for run in runs}
    if REFERENCE not in of_mode:
        return []
    return [_apart(mode, found, of_mode[REFERENCE]) for mode, found in of_mode.items() if mode != REFERENCE]


def targets(name: str, rows: Sequence[Row]) -> list[Target]:
    """Hybrid above embedding alone, and the collection's own bound where it has one."""
    found = []
    of_mode = {row["mode"]: row["ndcg@10"] for row in rows}
    if REFERENCE in of_mode and name in HYBRID_NDCG:
        found.append(at_least(f"{name}: nDCG@10 of hybrid", of_mode[REFERENCE], HYBRID_NDCG[name]))
    if REFERENCE in of_mode and "dense" in of_mode:
        found.append(more_than(f"{name}: nDCG@10 of hybrid above dense", of_mode[REFERENCE], of_mode["dense"]))
    return found


def scores(run: Run, queries: Sequence[Query], measure: str) -> list[float]:
    """One measure of every query."""
    measured = MEASURES[measure]
    return [measured(ranked, query.judged) for ranked, query in zip(run.rankings, queries, strict=True)]


def _of_type(name: str, run: Run, queries: Sequence[Query]) -> Row:
    mine = np.array([query.type == name for query in queries])
    means = {measure: float(np.mean(np.array(scores(run, queries, measure))[mine])) for measure in MEASURES_BY_TYPE}
    return {"type": name, "mode": run.mode, "queries": int(mine.sum()), **means}


def _apart(mode: str, found: Sequence[float], reference: Sequence[float]) -> Row:
    mean, low, high = difference(found, reference)
    return {"mode": mode, "less": REFERENCE, "ndcg@10": mean, "low": low, "high": high}


def _mean(values: Sequence[float] | Iterator[float]) -> float:
    return float(np.mean(list(values)))
