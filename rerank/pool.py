"""How many candidates the cross-encoder is asked about: what an answer can use, within what a request may cost."""

from collections.abc import Sequence
from itertools import accumulate

from django.conf import settings

from rerank import config
from rerank.backends.text_cleaning import estimate_tokens

LEAST = 24


def pool_size(top_k: int) -> int:
    """The candidates worth reranking for the best `top_k`: RERANK_CANDIDATES, or twice as many and at least 24.

    From a pool of `top_k`, reranking can only permute what retrieval has chosen already.
    """
    configured: int = settings.RERANK_CANDIDATES
    return configured or max(LEAST, 2 * top_k)


def affordable(query: str, passages: Sequence[object]) -> int:
    """How many of the passages, from the first, RERANK_POOL_TOKENS pays for, by an estimate; one at least."""
    limit = config.token_limits().pair
    texts = [passage if isinstance(passage, str) else "" for passage in passages]
    spent = accumulate(estimate_tokens(len(query or "") + len(text), limit) for text in texts)
    return max(min(1, len(texts)), sum(total <= settings.RERANK_POOL_TOKENS for total in spent))
