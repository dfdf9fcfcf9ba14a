"""The keyword baseline: textbook BM25 over plain text in memory, which every evaluation shows beside the product.

Robertson and Zaragoza (2009) with the parameters of Anserini's baselines (k1 0.9, b 0.4), the collection's own average
length, and the product's words and stems. No seals, no tenants' hashes, no vectors.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from memory.index.bm25 import K1, B, inverse_document_frequency
from memory.index.text_analysis import analyse


class BM25Baseline:
    """Ranks the texts of one user, {id: text}."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._ids = list(texts)
        counted = [Counter(analyse(text)) for text in texts.values()]
        lengths = np.array([counts.total() for counts in counted], dtype=np.float64)
        self._floors = K1 * (1 - B + B * lengths / max(lengths.mean(), 1.0))
        postings: dict[str, tuple[list[int], list[int]]] = {}
        for place, counts in enumerate(counted):
            for term, count in counts.items():
                places, occurrences = postings.setdefault(term, ([], []))
                places.append(place)
                occurrences.append(count)
        self._weights = {term: self._weighed(*found) for term, found in postings.items()}

    def best(self, query: str, limit: int) -> list[str]:
        """The ids of the best texts that share a term with the query, best first."""
        scores = np.zeros(len(self._ids))
        for term in set(analyse(query)):
            if term in self._weights:
                places, weights = self._weights[term]
                scores[places] += weights
        order = np.argsort(-scores, kind="stable")[:limit]
        return [self._ids[place] for place in order if scores[place] > 0]

    def _weighed(self, places: Sequence[int], occurrences: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        where, counts = np.array(places), np.array(occurrences, dtype=np.float64)
        idf = inverse_document_frequency(len(places), len(self._ids))
        return where, idf * counts * (K1 + 1) / (counts + self._floors[where])
