"""Computes the exact ranking from plain texts and original vectors in numpy, as the reference for every engine."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memory.index.bm25 import AVERAGE_LENGTH, K1, B, inverse_document_frequency
from memory.index.text_analysis import analyse
from memory.search.search_parameters import Weights


@dataclass(frozen=True, slots=True)
class Scores:
    """Of every row, float64 (n,): the fused score, and the cosine and the keywords (0 to 1) it is made of."""

    final: np.ndarray
    cosine: np.ndarray
    keywords: np.ndarray


class BruteForce:
    """One tenant's rows: vectors of unit length, float32 (n, d), texts, and the number of each one's document (n,).

    The rows of one document are consecutive.
    """

    def __init__(self, vectors: np.ndarray, texts: Sequence[str], documents: np.ndarray) -> None:
        self._vectors = vectors.astype(np.float64)
        self._documents = documents
        postings: dict[str, list[tuple[int, float]]] = {}
        for row, text in enumerate(texts):
            terms = analyse(text)
            floor = K1 * (1 - B + B * len(terms) / AVERAGE_LENGTH)
            for term, count in Counter(terms).items():
                postings.setdefault(term, []).append((row, count * (K1 + 1) / (count + floor)))
        self._postings = {term: np.array(found) for term, found in postings.items()}

    def best(self, query: str, vector: np.ndarray, weights: Weights, limit: int) -> list[int]:
        """The `limit` best rows by the fused score, best first."""
        return [int(row) for row in np.argsort(-self.scores(query, vector, weights), kind="stable")[:limit]]

    def scores(self, query: str, vector: np.ndarray, weights: Weights) -> np.ndarray:
        """The fused score of every row, float64 (n,)."""
        return self.parts(query, vector, weights).final

    def parts(self, query: str, vector: np.ndarray, weights: Weights) -> Scores:
        """The fused score of every row, and what it is made of."""
        return self.parts_of(query, self._vectors @ vector, weights)

    def parts_of(self, query: str, cosine: np.ndarray, weights: Weights) -> Scores:
        """The same, the cosine of every row given: of many queries they are quicker worked out together."""
        bm25 = self._bm25(query)
        keywords = bm25 / (bm25.max(initial=0) or 1)
        base = weights.dense * cosine + weights.lexical * keywords
        return Scores(base + weights.neighbour * np.maximum(0, self._beside(base) - base), cosine, keywords)

    def _bm25(self, query: str) -> np.ndarray:
        scores = np.zeros(len(self._vectors))
        for term in set(analyse(query)):
            if (postings := self._postings.get(term)) is not None:
                idf = inverse_document_frequency(len(postings), len(scores))
                scores[postings[:, 0].astype(int)] += idf * postings[:, 1]
        return scores

    def _beside(self, base: np.ndarray) -> np.ndarray:
        """The mean of the rows before and after in the same document, the row's own where there is none."""
        same = self._documents[1:] == self._documents[:-1]
        total, count = np.zeros_like(base), np.zeros_like(base)
        total[1:] += np.where(same, base[:-1], 0)
        total[:-1] += np.where(same, base[1:], 0)
        count[1:] += same
        count[:-1] += same
        return np.divide(total, count, out=base.copy(), where=count > 0)
