"""The keyword index as it is stored and asked: sparse vectors under the tenant's subkey."""

from django.conf import settings
from pgvector import SparseVector

from memory.lexical import DIMENSIONS, lexical_vector, query_dimensions
from memory.subkeys import lexical_subkey


def lexical_column(text: str, user_hash: str) -> SparseVector | None:
    """A chunk's term weights, or None while MEMORY_LEXICAL_INDEX is off."""
    if not settings.MEMORY_LEXICAL_INDEX:
        return None
    return SparseVector(lexical_vector(text, lexical_subkey(user_hash)), DIMENSIONS)


def asked_terms(query: str, user_hash: str) -> list[int]:
    """A question's terms as dimensions, the most frequent first; none while MEMORY_LEXICAL_INDEX is off."""
    if not settings.MEMORY_LEXICAL_INDEX:
        return []
    return query_dimensions(query, lexical_subkey(user_hash))
