"""Reranking with a cross-encoder that can fail without taking the answer with it.

A leaf: imports no sibling app. `reranking.py` holds the verbs, `engine.py` the batching, `breaker.py` the fuse.
"""

from typing import Any

__all__ = [
    "RerankedResult",
    "Reranking",
    "SkipReason",
    "get_cross_encoder",
    "get_rerank_metrics",
    "maybe_rerank",
    "rerank",
    "rerank_now",
    "rerank_with_reason",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: Django imports this package before its settings are ready."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rerank import reranking

    return getattr(reranking, name)
