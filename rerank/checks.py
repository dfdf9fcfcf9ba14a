"""System checks of the reranker's settings. Whether the weights are there is told at start-up, not here."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error

from rerank import gpu
from rerank.ordering import FUSIONS

E_CHOICE = "rerank.E001"
E_REMOTE = "rerank.E002"
E_RANGE = "rerank.E003"
E_GOLDEN = "rerank.E004"
E_ONNX_DEVICE = "rerank.E005"
E_GPU = "rerank.E006"
E_FALLBACK = "rerank.E007"

BACKENDS = ("auto", "onnx", "torch", "remote")
RANGES = {
    "RERANK_TIMEOUT_MS": (1, 10_000),
    "RERANK_FUSION_WEIGHT": (0, 100),
    "RERANK_BATCH_SIZE": (1, 32),
    "RERANK_CANDIDATES": (0, 1_000),
    "RERANK_POOL_TOKENS": (512, 1_000_000),
    "RERANK_BATCH_TOKENS": (512, 1_000_000),
    "RERANK_QUEUE_SIZE": (1, 10_000),
    "RERANK_MAX_TOKENS": (16, 8192),
    "RERANK_THREADS": (0, 256),
    "RERANK_REMOTE_CONNECTIONS": (1, 64),
}


def check_settings(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Every RERANK_* setting has a value the app understands."""
    return [*_choices(), *_remote(), *_ranges(), *_golden(), *_gpu(), *_fallback()]


def _choices() -> Iterator[CheckMessage]:
    for name, choices in (("RERANK_BACKEND", BACKENDS), ("RERANK_FUSION", FUSIONS)):
        if getattr(settings, name) not in choices:
            yield Error(f"{name} is none of {', '.join(choices)}.", hint=f"Set {name} to one of them.", id=E_CHOICE)
    device = settings.RERANK_DEVICE
    if device not in ("auto", "cpu", "cuda") and not device.removeprefix("cuda:").isdigit():
        yield Error("RERANK_DEVICE is none of auto, cpu, cuda, cuda:N.", hint="auto suits most.", id=E_CHOICE)


def _remote() -> Iterator[CheckMessage]:
    if settings.RERANK_BACKEND == "remote" and not settings.RERANK_REMOTE_URL.startswith(("http://", "https://")):
        yield Error(
            "RERANK_BACKEND=remote needs RERANK_REMOTE_URL.",
            hint="The base URL of a text-embeddings-inference server, such as http://rerank.internal:8080.",
            id=E_REMOTE,
        )


def _ranges() -> Iterator[CheckMessage]:
    ranges = RANGES | {"RERANK_QUERY_TOKENS": (1, max(1, settings.RERANK_MAX_TOKENS // 2))}
    for name, (low, high) in ranges.items():
        if not low <= getattr(settings, name) <= high:
            yield Error(f"{name} must lie between {low} and {high}.", hint="docs/reference.md says why.", id=E_RANGE)


def _golden() -> Iterator[CheckMessage]:
    golden = settings.RERANK_GOLDEN
    whole = isinstance(golden, list) and len(golden) in (0, 3) and all(isinstance(text, str) for text in golden)
    if not whole:
        yield Error(
            "RERANK_GOLDEN is no JSON list of a query, a relevant and an irrelevant passage.",
            hint="Set it to [] to go without the check.",
            id=E_GOLDEN,
        )


def _fallback() -> Iterator[CheckMessage]:
    name = settings.RERANK_FALLBACK_MODEL
    if name not in ("", "bundled") and not Path(name).expanduser().is_dir():
        yield Error(
            "RERANK_FALLBACK_MODEL is neither bundled, empty nor a folder.",
            hint="A folder holds model.onnx, tokenizer.json and config.json; rerank/weights/exported.py describes it.",
            id=E_FALLBACK,
        )


def _gpu() -> Iterator[CheckMessage]:
    if settings.RERANK_BACKEND == "onnx" and settings.RERANK_DEVICE.startswith("cuda"):
        yield Error(
            f"RERANK_BACKEND=onnx runs on the CPU alone, and RERANK_DEVICE is {settings.RERANK_DEVICE}.",
            hint="Set RERANK_BACKEND=torch for the GPU, or RERANK_DEVICE=cpu.",
            id=E_ONNX_DEVICE,
        )
    elif reason := gpu.why_requirement_fails():
        yield Error(f"RERANK_REQUIRE_GPU is true. {reason}", hint="manage.py gpu_check tells more.", id=E_GPU)
