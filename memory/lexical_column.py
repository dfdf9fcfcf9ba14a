"""The keyword index as it is stored and asked: sparse vectors under the tenant's subkey."""

from pgvector import SparseVector

from memory.lexical import DIMENSIONS, lexical_vector, query_dimensions
from memory.recipe import Recipe
from memory.subkeys import lexical_subkey


def lexical_column(text: str, user_hash: str, recipe: Recipe) -> SparseVector | None:
    """A chunk's term weights, or None for a tenant without a keyword index."""
    if recipe.language is None:
        return None
    return SparseVector(lexical_vector(text, lexical_subkey(user_hash), recipe.language), DIMENSIONS)


def asked_terms(query: str, user_hash: str, recipe: Recipe) -> list[int]:
    """A question's terms as dimensions, the most frequent first; none for a tenant without a keyword index."""
    if recipe.language is None:
        return []
    return query_dimensions(query, lexical_subkey(user_hash), recipe.language)
