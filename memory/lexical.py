"""The sealed keyword index: BM25 over terms that only the key holder can name.

A chunk becomes a sparse vector. Its dimensions are keyed hashes of its terms, HMAC-SHA256 under the tenant's subkey
modulo 10^9; its values are BM25's saturated term weights. A query becomes a sparse vector over the same dimensions with
the inverse document frequencies as values. Their inner product is the BM25 score (Robertson and Zaragoza, "The
Probabilistic Relevance Framework: BM25 and Beyond", 2009), so pgvector's `<#>` computes it over sealed text.

The database sees neither a term nor an unkeyed hash of one, and equal terms of two tenants share no dimension; it does
see how often each nameless term occurs. Two terms that meet in one dimension add up, as their true scores would.
"""

import hmac
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from memory.analysis import analyse

SUBKEY_LABEL: Final = b"sealed-memory lexical terms 1:"
DIMENSIONS: Final = 1_000_000_000  # the most that pgvector's sparsevec has
MAX_TERMS: Final = 400  # a chunk's: 8 bytes each, and a row must fit on an 8 KB page beside its vector
MAX_QUERY_TERMS: Final = 128
K1: Final = 0.9
B: Final = 0.4
AVERAGE_LENGTH: Final = 100  # fixed, so that a chunk's weights do not move when its neighbours change


def lexical_vector(text: str, subkey: bytes, language: str | None = None) -> dict[int, float]:
    """A chunk as {dimension, counted from 0: BM25 term weight}, the 400 heaviest terms; empty without any term."""
    terms = analyse(text, language)
    floor = K1 * (1 - B + B * len(terms) / AVERAGE_LENGTH)
    vector: dict[int, float] = {}
    for term, count in _most_frequent(terms, MAX_TERMS):
        dimension = _dimension(subkey, term)
        vector[dimension] = vector.get(dimension, 0.0) + count * (K1 + 1) / (count + floor)
    return vector


def query_dimensions(text: str, subkey: bytes, language: str | None = None) -> list[int]:
    """The distinct dimensions of a query, counted from 0, most frequent term first, at most 128; maybe none."""
    terms = analyse(text, language)
    return list(dict.fromkeys(_dimension(subkey, term) for term, _ in _most_frequent(terms, MAX_QUERY_TERMS)))


def query_vector(
    dimensions: Iterable[int], document_frequencies: Mapping[int, int], chunk_count: int
) -> dict[int, float]:
    """A query as {dimension: idf}, given in how many of the tenant's chunks each dimension occurs (absent means none).

    A term repeated in the query counts once: counting repeats measured slightly worse.
    """
    return {dim: inverse_document_frequency(document_frequencies.get(dim, 0), chunk_count) for dim in dimensions}


def inverse_document_frequency(frequency: int, chunk_count: int) -> float:
    """ln(1 + (N - df + 0.5) / (df + 0.5)), always positive, also where a count lags behind the frequencies."""
    chunk_count = max(chunk_count, frequency)
    return math.log1p((chunk_count - frequency + 0.5) / (frequency + 0.5))


def _most_frequent(terms: list[str], limit: int) -> list[tuple[str, int]]:
    # Within one text the weight grows with the count, so the most frequent are the heaviest; ties go to the earlier.
    counts = Counter(terms)
    return counts.most_common(limit) if len(counts) > limit else list(counts.items())


@lru_cache(maxsize=131072)  # about 25 MB when full
def _dimension(subkey: bytes, term: str) -> int:
    digest = hmac.digest(subkey, term.encode("utf-8", "surrogatepass"), "sha256")
    return int.from_bytes(digest[:8], "big") % DIMENSIONS
