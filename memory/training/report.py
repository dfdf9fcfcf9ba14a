"""The table of a trained model, a row for every set that it was measured on, and whether it pays."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memory.benchmarks.ranking import difference
from memory.training.quality import CONVERSATIONS, MOST_LOST, hybrid_ndcg, ndcg_of, oracle_ndcg
from rerank.ordering import Fusion
from rerank.training.fusion import fused
from rerank.training.pools import Pools

LEAST_GAINED = 0.02  # on conversations, with an interval that excludes 0
CURVE_COLUMNS = ("step", "pairs", "seconds", "loss", "hybrid", "dev", "model", "weight")


@dataclass(frozen=True, slots=True)
class Row:
    """nDCG@10 of one set. `gain`: fused less hybrid, with its 95% interval. `oracle`: the best order there is."""

    name: str
    questions: int
    hybrid: float
    fused: float
    model: float
    oracle: float
    gain: tuple[float, float, float]


def rows_of(pools: Pools, scores: np.ndarray, fusion: Fusion) -> Iterator[Row]:
    """A row for each kind of question, and one for the conversations of all collections together."""
    kinds = {kind: [row for row, each in enumerate(pools.kinds) if each == kind] for kind in sorted(set(pools.kinds))}
    spoken = [row for kind, rows in kinds.items() if kind.endswith(f"/{CONVERSATIONS}") for row in rows]
    for name, rows in {**kinds, **({CONVERSATIONS: spoken} if spoken else {})}.items():
        yield _row(name, pools.part(rows), scores[rows], fusion)


def what_is_in_the_way(rows: Sequence[Row]) -> list[str]:
    """Why a model with these held-out rows is not shipped, in words; nothing where it pays."""
    found = [f"{row.name} loses {-row.gain[0]:.4f}" for row in rows if row.gain[0] < -MOST_LOST]
    gains = [row.gain for row in rows if row.name == CONVERSATIONS]
    if not any(mean >= LEAST_GAINED and low > 0 for mean, low, _ in gains):
        found.append(f"{CONVERSATIONS} gain less than {LEAST_GAINED}")
    return found


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    lines = ["| Set | Questions | Hybrid | Fused | Gain (95%) | Model alone | Oracle |", "|" + "---|" * 7]
    for row in rows:
        gain = "{:+.4f} ({:+.4f} to {:+.4f})".format(*row.gain)
        figures = f"{row.hybrid:.4f} | {row.fused:.4f} | {gain} | {row.model:.4f} | {row.oracle:.4f}"
        lines.append(f"| {row.name} | {row.questions:,} | {figures} |")
    return "\n".join(lines)


def curve_as_markdown(points: Sequence[Mapping[str, float]]) -> str:
    """The learning curve as a table."""
    lines = ["| " + " | ".join(CURVE_COLUMNS) + " |", "|" + "---|" * len(CURVE_COLUMNS)]
    return "\n".join([*lines, *("| " + " | ".join(f"{p[name]:g}" for name in CURVE_COLUMNS) + " |" for p in points)])


def _row(name: str, pools: Pools, scores: np.ndarray, fusion: Fusion) -> Row:
    hybrid, together = hybrid_ndcg(pools, scores.shape[1]), ndcg_of(pools, fused(pools, scores, fusion))
    return Row(
        name=name,
        questions=len(pools),
        hybrid=float(hybrid.mean()),
        fused=float(together.mean()),
        model=float(ndcg_of(pools, scores).mean()),
        oracle=float(oracle_ndcg(pools, scores.shape[1]).mean()),
        gain=difference(together.tolist(), hybrid.tolist()),
    )
