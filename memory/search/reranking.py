"""Candidates → answers: in the cross-encoder's order where there is one, in the retrieval order where there is none."""

from collections.abc import Sequence
from dataclasses import replace

from memory.search.matches import Match
from rerank import Reranking, SkipReason, rerank_now


def reorder(query: str, candidates: Sequence[Match], *, wanted: bool) -> tuple[list[Match], Reranking]:
    """All candidates, best first, each with the cross-encoder's `score`; and how that order came about.

    Never raises on account of the reranker, and takes RERANK_TIMEOUT_MS at most. `wanted`: the caller's own choice.
    """
    texts = [candidate.text for candidate in candidates]
    if wanted:
        scores = [candidate.retrieval_score for candidate in candidates]
        reranking = rerank_now(query, texts, retrieval_scores=scores)
    else:
        reranking = Reranking.skipped(len(texts), SkipReason.DISABLED)
    if reranking.scores is None:
        return [candidates[index] for index in reranking.order], reranking
    return [replace(candidates[index], score=reranking.scores[index]) for index in reranking.order], reranking
