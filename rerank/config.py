"""The RERANK_* settings, read when used."""

from pathlib import Path
from typing import Any

from django.conf import settings

from inference.engine.breaker import Policy
from rerank.backends import ServedModel
from rerank.backends.pair_tokenizer import Limits
from rerank.ordering import Fusion
from rerank.weights.exported import BUNDLED
from rerank.weights.files import ModelChoice

SLOW_SHARE_OF_TIMEOUT = 0.8


def model_choice() -> ModelChoice:
    return ModelChoice(
        name=settings.RERANK_MODEL,
        revision=settings.RERANK_REVISION,
        sha256=settings.RERANK_MODEL_SHA256,
        allow_download=settings.MODELS_MAY_DOWNLOAD,
    )


def fallback_directory() -> Path | None:
    """Where the model lies that is served when the specified one is not at hand; None where none is wanted."""
    name = settings.RERANK_FALLBACK_MODEL
    return (BUNDLED if name == "bundled" else Path(name).expanduser()) if name else None


def token_limits() -> Limits:
    return Limits(pair=settings.RERANK_MAX_TOKENS, query=settings.RERANK_QUERY_TOKENS)


def fusion_of(model: ServedModel) -> Fusion:
    """How this model's scores are used: as it came with, or as the settings say."""
    return model.fusion or Fusion(settings.RERANK_FUSION, settings.RERANK_FUSION_WEIGHT)


def breaker_policy() -> Policy:
    return Policy(slow_after=SLOW_SHARE_OF_TIMEOUT * settings.RERANK_TIMEOUT_MS / 1000)


def golden_pair() -> tuple[str, str, str] | None:
    """(query, relevant passage, irrelevant passage), or None where the operator switched the check off."""
    golden: list[Any] = settings.RERANK_GOLDEN
    return (golden[0], golden[1], golden[2]) if golden else None
