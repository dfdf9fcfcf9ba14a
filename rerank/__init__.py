"""Reranking with a cross-encoder that can fail without taking the answer with it.

    reranking      the verbs: query and candidates in, a better order out, or their own order and the reason
    cross_encoder  the model with `predict` and `rank`, as sentence-transformers has them
    runtime        the one engine of this process, loaded in the background
    scoring        a query and its passages as a request to that engine
    loading        from settings to a warmed backend
    startup        where serving begins, and with it loading
    gpu            the CUDA device: is it there, must it be?
    flag           whether to rerank at all: the environment, and the operators' switch (`models`, `admin`)
    pool           how many candidates it is asked about
    health         how the reranker is, for `/readyz` and the admin
    config         the RERANK_* settings, as values for the rooms below
    training/      how the small cross-encoder of this project is trained; serving imports none of it

Rooms below, from the ground up, each importing only what stands before it:

    outcomes, ordering   what a rerank comes to, and how scores become an order
    metrics, latency     how it is counted
    weights/             the model's files
    backends/            what computes scores: torch, ONNX Runtime, a remote server

Imports no sibling app but `inference`, the leaf that runs models: the engine in front of a backend (queue, batches,
deadlines, breaker) is `inference.engine`. `tests/test_rooms.py` asserts both.
"""

from typing import Any

__all__ = [
    "RerankedResult",
    "Reranker",
    "Reranking",
    "SkipReason",
    "get_cross_encoder",
    "get_rerank_metrics",
    "maybe_rerank",
    "pool_size",
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
