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
from typing import ClassVar, Final

from memory.index.text_analysis import analyse

DIMENSIONS: Final = 1_000_000_000  # the most that pgvector's sparsevec has
MAX_TERMS: Final = 400  # a chunk's: 8 bytes each, and a row must fit on an 8 KB page beside its vector
MAX_QUERY_TERMS: Final = 128
K1: Final = 0.9
B: Final = 0.4
REMEMBERED_HEADERS: Final = 1_024
REMEMBERED_TERMS: Final = 131_072  # term hashes that a process keeps, of all tenants; 25 MB
AVERAGE_LENGTH: Final = 100  # fixed, so that a chunk's weights do not move when its neighbours change


def lexical_vector(text: str, subkey: bytes, language: str | None = None, *, header: str = "") -> dict[int, float]:
    """A chunk as {dimension, counted from 0: BM25 term weight}, the 400 heaviest terms; empty without any term.

    A `header` counts as if it stood before the text. It is analysed by itself: many chunks have the same one, and its
    dots and names would take the analysis of an English text the long way round Unicode.
    """
    terms = analyse(text, language)
    if header:
        terms = [*_header_terms(header, language), *terms]
    counts = _most_frequent(terms, MAX_TERMS)
    floor = K1 * (1 - B + B * len(terms) / AVERAGE_LENGTH)
    weights = {count: count * (K1 + 1) / (count + floor) for count in set(counts.values())}
    dimensions = _dimensions(subkey)
    vector = {dimensions[term]: weights[count] for term, count in counts.items()}
    return vector if len(vector) == len(counts) else _added_up(counts, weights, dimensions)


def query_dimensions(text: str, subkey: bytes, language: str | None = None) -> list[int]:
    """The distinct dimensions of a query, counted from 0, most frequent term first, at most 128; maybe none."""
    dimensions = _dimensions(subkey)
    return list(dict.fromkeys(dimensions[term] for term in _most_frequent(analyse(text, language), MAX_QUERY_TERMS)))


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


@lru_cache(maxsize=REMEMBERED_HEADERS)
def _header_terms(header: str, language: str | None) -> tuple[str, ...]:
    return tuple(analyse(header, language))


def _added_up(
    counts: Mapping[str, int], weights: Mapping[int, float], dimensions: Mapping[str, int]
) -> dict[int, float]:
    """The vector of a text of which two terms meet in one dimension."""
    vector: dict[int, float] = {}
    for term, count in counts.items():
        vector[dimensions[term]] = vector.get(dimensions[term], 0.0) + weights[count]
    return vector


def _most_frequent(terms: list[str], limit: int) -> dict[str, int]:
    # Within one text the weight grows with the count, so the most frequent are the heaviest; ties go to the earlier.
    counts = Counter(terms)
    return dict(counts.most_common(limit)) if len(counts) > limit else counts


class _Dimensions(dict[str, int]):
    """Terms and their dimensions under one subkey, worked out when first asked for."""

    known: ClassVar[int] = 0
    by_subkey: ClassVar[dict[bytes, "_Dimensions"]] = {}

    def __init__(self, subkey: bytes) -> None:
        super().__init__()
        self._subkey = subkey
        _Dimensions.known += 1

    def __missing__(self, term: str) -> int:
        dimension = self[term] = dimension_of(term, self._subkey)
        _Dimensions.known += 1
        return dimension


def _dimensions(subkey: bytes) -> _Dimensions:
    # A dict a tenant, and not one cache of pairs: every chunk asks for a hundred terms.
    if _Dimensions.known > REMEMBERED_TERMS:
        _Dimensions.by_subkey, _Dimensions.known = {}, 0
    found = _Dimensions.by_subkey.get(subkey)
    if found is None:
        found = _Dimensions.by_subkey[subkey] = _Dimensions(subkey)
    return found


def dimension_of(term: str, subkey: bytes) -> int:
    """The dimension of one term, as `memory.index.text_analysis` gives it, counted from 0."""
    digest = hmac.digest(subkey, term.encode("utf-8", "surrogatepass"), "sha256")
    return int.from_bytes(digest[:8], "big") % DIMENSIONS
