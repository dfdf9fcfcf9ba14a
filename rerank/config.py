"""The RERANK_* settings, read when used."""

from typing import Any

from django.conf import settings

from rerank.backends.pair_tokenizer import Limits
from rerank.engine.breaker import Policy
from rerank.ordering import Fusion
from rerank.weights.files import ModelChoice

SLOW_SHARE_OF_TIMEOUT = 0.8


def model_choice() -> ModelChoice:
    return ModelChoice(
        name=settings.RERANK_MODEL,
        revision=settings.RERANK_REVISION,
        sha256=settings.RERANK_MODEL_SHA256,
        allow_download=settings.MODELS_MAY_DOWNLOAD,
    )


def token_limits() -> Limits:
    return Limits(pair=settings.RERANK_MAX_TOKENS, query=settings.RERANK_QUERY_TOKENS)


def fusion() -> Fusion:
    return Fusion(settings.RERANK_FUSION, settings.RERANK_FUSION_WEIGHT)


def breaker_policy() -> Policy:
    return Policy(slow_after=SLOW_SHARE_OF_TIMEOUT * settings.RERANK_TIMEOUT_MS / 1000)


def golden_pair() -> tuple[str, str, str] | None:
    """(query, relevant passage, irrelevant passage), or None where the operator switched the check off."""
    golden: list[Any] = settings.RERANK_GOLDEN
    return (golden[0], golden[1], golden[2]) if golden else None
