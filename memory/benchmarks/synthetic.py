"""Synthetic memories: texts whose word frequencies follow Zipf's law, and embeddings in clusters.

The same seed gives the same memories on every machine with the same numpy.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

# Zipf's law without its first ranks, which in a language are the stop words that the keyword index leaves out: eight
# words of a question then stand in 0.17 of all texts of 30 words. In 40 words of SciFact it is 0.22 (9.0 terms), of
# SQuADShifts 0.08 (5.2 terms); with the first ranks it was 1.4.
VOCABULARY = 20_000
FIRST_RANK = 41
TOPICS = 500
# Cosine 0.7 to the topic's centre, 0.5 between two memories of one topic: near what all-MiniLM-L6-v2 gives.
SPREAD = 1.0
_SYLLABLES = np.array([c + v for c in "bdfgklmnprstvz" for v in "aeiou"])


class Synthetic:
    """A source of texts and vectors of `dim` dimensions. Sources of one seed share words and topics; `stream` says
    which of their endless memories this one gives."""

    def __init__(self, dim: int, seed: int = 0, stream: int = 0) -> None:
        self.dim = dim
        self._words, self._cumulative, self._centres = _world(dim, seed)
        self._rng = np.random.default_rng([seed, stream])

    def vectors(self, count: int) -> np.ndarray:
        """Unit vectors around random topics, float32 (count, dim)."""
        centres = self._centres[self._rng.integers(TOPICS, size=count)]
        return self.near(centres)

    def near(self, vectors: np.ndarray) -> np.ndarray:
        """For each unit vector another one at cosine 0.7 or so, float32 (n, dim)."""
        noise = self._rng.standard_normal(vectors.shape, dtype=np.float32) / np.sqrt(self.dim, dtype=np.float32)
        return _unit(vectors + SPREAD * noise)

    def texts(self, count: int, words: int) -> Iterator[str]:
        """Texts of `words` words each."""
        for draws in self._rng.random((count, words)):
            yield " ".join(self._words[np.searchsorted(self._cumulative, draws)])


def zipf_sizes(rows: int, tenants: int) -> list[int]:
    """How many rows each tenant has, largest first: in proportion to 1/rank, at least one each, `rows` together."""
    if not 1 <= tenants <= rows:
        raise ValueError("There must be at least as many rows as tenants, and one of each.")
    weights = 1.0 / np.arange(1, tenants + 1)
    sizes = 1 + np.floor((rows - tenants) * weights / weights.sum()).astype(int)
    sizes[0] += rows - sizes.sum()
    return [int(size) for size in sizes]


@lru_cache(maxsize=2)
def _world(dim: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The vocabulary, the cumulated probabilities of its words, and the topics' centres."""
    rng = np.random.default_rng(seed)
    words = _vocabulary(rng)
    weights = 1.0 / np.arange(FIRST_RANK, FIRST_RANK + VOCABULARY)
    return words, np.cumsum(weights / weights.sum()), _unit(rng.standard_normal((TOPICS, dim), dtype=np.float32))


def _vocabulary(rng: np.random.Generator) -> np.ndarray:
    words: dict[str, None] = {}
    while len(words) < VOCABULARY:
        parts = rng.choice(_SYLLABLES, size=(VOCABULARY, int(rng.integers(2, 5))))
        words.update(dict.fromkeys("".join(row) for row in parts))
    return np.array(list(words)[:VOCABULARY])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)
