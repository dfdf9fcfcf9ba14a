"""From settings to a warmed backend whose golden pair comes out in the right order."""

import logging
from collections.abc import Callable

from django.conf import settings

from rerank import config, gpu
from rerank.backends import Backend
from rerank.backends.remote import RemoteBackend
from rerank.outcomes import ModelUnavailable
from rerank.weights.exported import verify_exported
from rerank.weights.files import ModelFiles, locate, verify

logger = logging.getLogger(__name__)

WARM_UP_PAIRS = 24
WARM_UP_PASSAGE = "The quick brown fox jumps over the lazy dog. " * 10


def load_backend() -> Backend:
    """Build, warm and check the backend that the settings ask for. Raises ModelUnavailable with the remedy."""
    backend = _remote() if settings.RERANK_BACKEND == "remote" else _local()
    warm_up(backend)
    return backend


def _remote() -> Backend:
    if not settings.RERANK_REMOTE_URL:
        raise ModelUnavailable("RERANK_BACKEND=remote needs RERANK_REMOTE_URL.")
    return RemoteBackend(
        settings.RERANK_REMOTE_URL,
        limits=config.token_limits(),
        model=settings.RERANK_MODEL,
        token=settings.RERANK_REMOTE_TOKEN,
        connections=settings.RERANK_REMOTE_CONNECTIONS,
    )


def _local() -> Backend:
    if reason := gpu.why_requirement_fails():
        raise ModelUnavailable(f"RERANK_REQUIRE_GPU is true. {reason}")
    choice = config.model_choice()
    try:
        files = verify(locate(choice), choice)
    except ModelUnavailable as absence:
        return _onnx(_fallback(absence), "cpu")
    device = resolve_device(settings.RERANK_DEVICE, settings.RERANK_BACKEND)
    return BUILDERS[resolve_backend(settings.RERANK_BACKEND, device, files)](files, device)


def _fallback(absence: ModelUnavailable) -> ModelFiles:
    """The files of RERANK_FALLBACK_MODEL. Raises `absence` where nothing lies there, ModelUnavailable where it is
    broken."""
    directory = config.fallback_directory()
    if directory is None or not directory.is_dir():
        raise absence
    try:
        files = verify_exported(directory)
    except ModelUnavailable as worse:
        raise ModelUnavailable(f"{absence} RERANK_FALLBACK_MODEL: {worse}") from worse
    logger.warning("%s Until then %s reranks.", absence, files.name)
    return files


def _onnx(files: ModelFiles, device: str) -> Backend:
    from rerank.backends.onnx_backend import OnnxBackend

    return OnnxBackend(files, config.token_limits(), threads=settings.RERANK_THREADS)


def _torch(files: ModelFiles, device: str) -> Backend:
    from rerank.backends.torch_backend import TorchBackend

    return TorchBackend(files, config.token_limits(), device)


BUILDERS: dict[str, Callable[[ModelFiles, str], Backend]] = {"onnx": _onnx, "torch": _torch}


def resolve_device(device: str, backend: str) -> str:
    """`auto` is the first CUDA device where torch sees one. The onnx backend knows the CPU alone."""
    if backend == "onnx" and device.startswith("cuda"):
        raise ModelUnavailable(f"RERANK_BACKEND=onnx runs on the CPU, and RERANK_DEVICE={device} asks for another.")
    if backend == "onnx" or device == "cpu":
        return "cpu"
    unusable = gpu.why_unusable("cuda:0" if device == "auto" else device)
    if device == "auto":
        return "cpu" if unusable else "cuda:0"
    if unusable:
        raise ModelUnavailable(f"RERANK_DEVICE={device}: {unusable}")
    return device


def resolve_backend(backend: str, device: str, files: ModelFiles) -> str:
    """`auto` is onnx on the CPU (about half of torch's time, docs/reference.md) for BERT models, torch for all else."""
    if backend != "auto":
        return backend
    known = files.config.get("model_type") == "bert" and not files.modular
    return "onnx" if device == "cpu" and known else "torch"


def warm_up(backend: Backend) -> None:
    """One full batch, so that kernels and memory are there before the first user; then the golden pair.

    Raises ModelUnavailable when the backend fails or ranks the golden pair the wrong way round.
    """
    try:
        backend.predict([("warm up", WARM_UP_PASSAGE)] * WARM_UP_PAIRS)
        right = golden_pair_ranks_right(backend)
    except Exception as error:
        backend.close()
        raise ModelUnavailable(f"The {backend.name} reranker failed its warm-up: {type(error).__name__}.") from error
    if not right:
        backend.close()
        raise ModelUnavailable(
            "The reranker ranks the pair of RERANK_GOLDEN the wrong way round: wrong or broken weights."
        )


def golden_pair_ranks_right(backend: Backend) -> bool:
    golden = config.golden_pair()
    if golden is None:
        return True
    query, relevant, irrelevant = golden
    good, bad = backend.predict([(query, relevant), (query, irrelevant)])
    return bool(good > bad)
