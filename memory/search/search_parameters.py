"""Search parameters: what one tenant's rows are searched for, and how the parts of a score weigh."""

from dataclasses import dataclass, field

import numpy as np
from django.conf import settings

from memory.index.keywords import query_terms
from memory.index.recipe import Recipe, configured
from memory.index.vectors import searchable
from memory.search.filters import EVERYTHING, Scope


@dataclass(frozen=True)
class Weights:
    """base = dense · cosine + lexical · BM25 / best BM25; a chunk whose adjacent chunks score more than itself in the
    mean is lifted towards them: score = base + neighbour · max(0, their mean base − base), `neighbour` from 0 to 1.

    Raises ValueError for a weight out of its range.
    """

    dense: float = 1.0
    lexical: float = 0.5
    neighbour: float = 0.9

    def __post_init__(self) -> None:
        if min(self.dense, self.lexical) < 0 or not 0 <= self.neighbour <= 1:
            raise ValueError("Weights are not negative, and that of neighbours is at most 1.")

    @classmethod
    def configured(cls) -> "Weights":
        """The installation's own: MEMORY_LEXICAL_WEIGHT, MEMORY_NEIGHBOUR_WEIGHT."""
        return cls(lexical=settings.MEMORY_LEXICAL_WEIGHT, neighbour=settings.MEMORY_NEIGHBOUR_WEIGHT)


@dataclass(frozen=True)
class SearchParameters:
    """`vector`: float32 (d,), turned and of unit length. `terms`: keyed dimensions, the most frequent first."""

    user_hash: str
    recipe: Recipe
    vector: np.ndarray = field(repr=False)
    terms: list[int] = field(repr=False)
    weights: Weights
    scope: Scope
    limit: int


def search_parameters(
    user_hash: str,
    *,
    recipe: Recipe | None = None,
    vector: np.ndarray,
    query: str,
    limit: int,
    weights: Weights | None = None,
    scope: Scope = EVERYTHING,
) -> SearchParameters:
    """From an embedding (float32 (d,), as the model or the client gave it) and a text, for the rows of one tenant."""
    recipe = recipe or configured()
    weights = weights or Weights.configured()
    return SearchParameters(
        user_hash=user_hash,
        recipe=recipe,
        vector=searchable(vector, user_hash, recipe),
        terms=query_terms(query, user_hash, recipe) if weights.lexical else [],
        weights=weights,
        scope=scope,
        limit=limit,
    )
