"""The keyword index as it is stored and searched: sparse vectors under the tenant's subkey."""

from pgvector import SparseVector

from memory.index.bm25 import DIMENSIONS, lexical_vector, query_dimensions
from memory.index.context import InContext, header_of
from memory.index.recipe import Recipe
from memory.sealing.subkeys import lexical_subkey


def lexical_column(chunk: InContext, user_hash: str, recipe: Recipe) -> SparseVector | None:
    """The weights of the terms of a chunk and its header, or None for a tenant without a keyword index."""
    if recipe.language is None:
        return None
    header = header_of(chunk, recipe.header)
    return sparse(lexical_vector(chunk.text, lexical_subkey(user_hash), recipe.language, header=header))


def sparse(weights: dict[int, float]) -> SparseVector:
    """Non-zero weights by dimension as a sparsevec."""
    dimensions = sorted(weights)
    # SparseVector({…}) filters, sorts and copies them as pairs: half of what a chunk's keywords took to write.
    vector: SparseVector = SparseVector._from_parts(DIMENSIONS, dimensions, [weights[each] for each in dimensions])
    return vector


def query_terms(query: str, user_hash: str, recipe: Recipe) -> list[int]:
    """A query's terms as dimensions, the most frequent first; none for a tenant without a keyword index."""
    if recipe.language is None:
        return []
    return query_dimensions(query, lexical_subkey(user_hash), recipe.language)
