"""Measures the reranker on this machine's CUDA device against the specification's latency bounds."""

import re
from pathlib import Path
from time import perf_counter

from django.conf import settings
from django.test import override_settings

from memory.benchmarks.report import Report, Row, Target, at_most, less_than
from memory.benchmarks.rerank import (
    CANDIDATES,
    NO_HURRY_MS,
    SERVED_LENGTH,
    latency_columns,
    make_queries,
    rerank_patiently,
    switched_on,
)
from rerank import gpu, runtime

QUERIES = 100
# The specification's, in ms.
BOUNDS_MS = {"p50": 50.0, "p95": 150.0, "p99": 250.0}
LOAD_SECONDS = 5.0
DRIVER = Path("/proc/driver/nvidia/version")


class GPUMissing(Exception):
    """There is no CUDA device to measure on; the message says why."""


def measure_gpu() -> Report:
    """100 queries of 24 candidates of about 120 tokens, one after another, on the device of RERANK_DEVICE.

    Raises GPUMissing, ModelUnavailable, or RuntimeError when a query was not reranked.
    """
    device = settings.RERANK_DEVICE if settings.RERANK_DEVICE.startswith("cuda") else "cuda:0"
    if reason := gpu.why_unusable(device):
        raise GPUMissing(reason)
    with (
        switched_on(),
        override_settings(RERANK_DEVICE=device, RERANK_BACKEND="torch", RERANK_TIMEOUT_MS=NO_HURRY_MS),
    ):
        runtime.reset().load_now()
        loaded = runtime.current().load_seconds
        seconds = _time_queries()
        runtime.reset()
    latency = latency_columns(seconds)
    results: list[Row] = [
        {**_describe(device), "load_seconds": loaded},
        {"queries": len(seconds), "candidates": CANDIDATES, "tokens": SERVED_LENGTH, **latency},
    ]
    return Report("gpu_check", results, _targets(latency, loaded))


def _time_queries() -> list[float]:
    work = make_queries(SERVED_LENGTH, QUERIES)
    rerank_patiently(*work[0])
    seconds = []
    for query, passages in work:
        started = perf_counter()
        rerank_patiently(query, passages)
        seconds.append(perf_counter() - started)
    return seconds


def _targets(latency: dict[str, float], loaded: float) -> list[Target]:
    bounds = [at_most(name, latency[f"{name}_ms"], bound, "ms") for name, bound in BOUNDS_MS.items()]
    return [*bounds, less_than("load", loaded, LOAD_SECONDS, "s")]


def _describe(device: str) -> dict[str, str]:
    import torch

    return {
        "device": f"{device} {torch.cuda.get_device_name(device)}",
        "driver": _driver(),
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda),
    }


def _driver() -> str:
    """The version of NVIDIA's kernel module, as /proc shows it."""
    told = re.search(r"Module.*?\s(\d+(?:\.\d+)+)\s", DRIVER.read_text()) if DRIVER.is_file() else None
    return told[1] if told else "unknown"
