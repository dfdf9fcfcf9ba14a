"""What the tests of searching share: asking for candidates, and which path answered."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from memory import metrics
from memory.search.filters import Scope
from memory.search.retrieval import Candidate, find_candidates
from memory.search.search_parameters import SearchParameters, Weights, search_parameters


def found(
    user_id: str,
    query: str,
    vector: np.ndarray,
    limit: int = 24,
    weights: Weights | None = None,
    model: str | None = None,
    **scope: Any,
) -> Sequence[Candidate]:
    """The candidates for a question, best first."""
    return find_candidates(
        user_id=user_id, query=query, vector=vector, limit=limit, weights=weights, model=model, scope=Scope(**scope)
    )[1]


def asked(user_hash: Any, vector: np.ndarray, text: str = "apollo river", **options: Any) -> SearchParameters:
    """The parameters of a search, for its statements alone."""
    return search_parameters(user_hash, vector=vector, query=text, limit=24, **options)


def path_of(
    user_id: str, vector: np.ndarray, text: str = "apollo river", **options: Any
) -> tuple[str, Sequence[Candidate]]:
    """Whether the graph or the exact scan answered, and what."""
    before = {path: metrics.CANDIDATE_SEARCHES.labels(path)._value.get() for path in ("graph", "exact")}
    candidates = found(user_id, text, vector, **options)
    (path,) = [p for p, count in before.items() if metrics.CANDIDATE_SEARCHES.labels(p)._value.get() > count]
    return path, candidates
