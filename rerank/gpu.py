"""The CUDA device: is the configured one there, and must it be?

Asks the driver's management library (NVML) and not the CUDA runtime, which must not be touched before a fork.
"""

import os

from django.conf import settings

from rerank.outcomes import GPURequired

SEE = "See docs/howto/gpu.md."


def why_unusable(device: str) -> str:
    """Why `cuda` or `cuda:N` cannot be used on this machine; empty where it can."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA. {SEE}"
    if not torch.cuda.is_available():
        return f"torch sees no CUDA device. {SEE}"
    number, count = int(device.partition(":")[2] or 0), torch.cuda.device_count()
    return "" if number < count else f"{device} is none of the {count} CUDA devices of this machine. {SEE}"


def why_requirement_fails() -> str:
    """Why RERANK_REQUIRE_GPU is not met; empty where it is met, or false."""
    backend, device = settings.RERANK_BACKEND, settings.RERANK_DEVICE
    if not settings.RERANK_REQUIRE_GPU:
        return ""
    if backend in ("onnx", "remote"):
        return f"RERANK_BACKEND={backend} uses no CUDA device of this machine."
    if device == "cpu":
        return "RERANK_DEVICE=cpu asks for none."
    return why_unusable("cuda:0" if device == "auto" else device)


def assert_required_gpu() -> None:
    """Raises GPURequired where RERANK_REQUIRE_GPU is true and the device cannot be used."""
    if reason := why_requirement_fails():
        raise GPURequired(f"RERANK_REQUIRE_GPU is true. {reason}")
