"""The score of every chunk as the documentation defines it, from plain texts and original vectors, in numpy."""

import math
from collections.abc import Sequence

import numpy as np

from memory.index.text_analysis import analyse


def bm25(query: str, texts: Sequence[str]) -> np.ndarray:
    """BM25 (k1 0.9, b 0.4, average length 100) of each text, over terms in the clear."""
    analysed = [analyse(text) for text in texts]
    scores = np.zeros(len(texts))
    for term in set(analyse(query)):
        frequencies = np.array([terms.count(term) for terms in analysed])
        holders = int((frequencies > 0).sum())
        idf = math.log(1 + (len(texts) - holders + 0.5) / (holders + 0.5))
        lengths = np.array([len(terms) for terms in analysed])
        scores += idf * frequencies * 1.9 / (frequencies + 0.9 * (0.6 + 0.4 * lengths / 100))
    return scores


def fused(
    query: str,
    vector: np.ndarray,
    documents: Sequence[Sequence[tuple[str, np.ndarray]]],
    *,
    lexical: float = 0.5,
    neighbour: float = 0.9,
) -> np.ndarray:
    """The score of every chunk of `documents`, flat. A document is a list of (text, embedding)."""
    flat = [chunk for document in documents for chunk in document]
    dense = np.array([np.dot(e, vector) / np.linalg.norm(e) / np.linalg.norm(vector) for _, e in flat])
    keywords = bm25(query, [text for text, _ in flat])
    base = dense + lexical * keywords / (keywords.max() or 1)
    return base + neighbour * np.maximum(0, np.array(list(_beside(base, documents))) - base)


def _beside(base, documents):
    start = 0
    for document in documents:
        for index in range(len(document)):
            beside = [base[start + other] for other in (index - 1, index + 1) if 0 <= other < len(document)]
            yield sum(beside) / len(beside) if beside else -np.inf
        start += len(document)
