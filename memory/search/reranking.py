"""Candidates → answers: in the cross-encoder's order where there is one, in the retrieval order where there is none."""

from collections.abc import Sequence
from dataclasses import replace

from memory.index.context import embedded_text
from memory.index.recipe import configured
from memory.search.matches import Match
from rerank import Reranking, SkipReason, rerank_now


def reorder(query: str, candidates: Sequence[Match], *, pool: int, wanted: bool) -> tuple[list[Match], Reranking]:
    """All candidates, best first, each with the cross-encoder's `score`; and how that order came about.

    The first `pool` are reranked, the rest follow in retrieval order. Never raises on account of the reranker, and
    takes RERANK_TIMEOUT_MS at most. `wanted`: the caller's own choice.
    """
    first, rest = candidates[:pool], candidates[pool:]
    if wanted:
        scores = [each.retrieval_score for each in first]
        reranking = rerank_now(query, passages_of(first), retrieval_scores=scores)
    else:
        reranking = Reranking.skipped(len(first), SkipReason.DISABLED)
    found = reranking.scores or (None,) * len(first)
    return [*(replace(first[index], score=found[index]) for index in reranking.order), *rest], reranking


def passages_of(candidates: Sequence[Match]) -> list[str]:
    """What the cross-encoder reads of each candidate: its text, behind the header of its context."""
    form = configured().header
    return [embedded_text(each, form) for each in candidates]
