"""Any sentence-transformers model on torch: fp32 on the CPU, fp16 on CUDA."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inference.engine.backend import EngineLimits
from inference.engine.jobs import Encoded
from memory.exceptions import EmbeddingModelUnavailable
from memory.index.embedders import Kind, clean, estimated_tokens, prompt_of

CPU_SLICE_TOKENS = 256
GPU_ITEMS = 256  # texts in one forward, unless MEMORY_EMBEDDING_BATCH says otherwise
GPU_SLICE_TOKENS = 32_768
UNKNOWN_LENGTH = 512  # tokens, where a model does not say how many it reads


class TorchEmbedder:
    """One thread: neither tokenizer nor device like company. `device` is "cpu", "cuda" or "cuda:N", … .

    `batch`: texts in one forward; 0: as suits the device. `truncate`: keep the first `dimension` numbers, for models
    that were trained for that.
    """

    name = "torch"
    workers = 1
    mixes_requests = True
    keeps_deadlines = False

    def __init__(
        self,
        name: str,
        *,
        device: str,
        batch: int = 0,
        threads: int = 0,
        may_download: bool = False,
        dimension: int | None = None,
        prompts: Mapping[Kind, str] | None = None,
    ) -> None:
        # Imported here: it takes seconds, and most commands never embed.
        import torch

        self.device = device
        on_gpu = device.startswith("cuda")
        if threads and not on_gpu:
            torch.set_num_threads(threads)
        self._model = _load(name, device, torch.float16 if on_gpu else torch.float32, may_download, dimension)
        self.row: tuple[int, ...] = (int(self._model.get_embedding_dimension()),)
        self.reads: int | None = int(self._model.max_seq_length or UNKNOWN_LENGTH)
        # Named here: the library takes an empty default for "document" before a model's own "passage".
        self._prompts = {kind: prompt_of(self._model.prompts, kind) for kind in Kind} | dict(prompts or {})
        tokens = GPU_SLICE_TOKENS if on_gpu else CPU_SLICE_TOKENS
        items = batch or (GPU_ITEMS if on_gpu else CPU_SLICE_TOKENS)
        self.limits = EngineLimits(items=items, tokens=2 * tokens, slice_tokens=tokens)

    def encode(self, texts: Sequence[str], kind: Kind) -> list[Encoded]:
        """The library tokenises in the forward; the lengths are guesses."""
        return [Encoded(estimated_tokens(text, self.reads or UNKNOWN_LENGTH), (kind, clean(text))) for text in texts]

    def forward(self, items: Sequence[Encoded], timeout: float) -> np.ndarray:
        kind = items[0].payload[0]
        encode = self._model.encode_query if kind is Kind.QUESTION else self._model.encode_document
        vectors = encode(
            [text for _, text in (item.payload for item in items)],
            prompt=self._prompts[kind],
            batch_size=len(items),
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, dtype=np.float32)

    def close(self) -> None:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()


def _load(name: str, device: str, dtype: Any, may_download: bool, dimension: int | None) -> Any:
    load: Callable[..., Any]
    from sentence_transformers import SentenceTransformer as load
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        return load(
            name,
            device=device,
            local_files_only=not may_download,
            truncate_dim=dimension,
            model_kwargs={"dtype": dtype},
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise EmbeddingModelUnavailable(
            f"MEMORY_EMBEDDING_MODEL cannot be loaded ({type(error).__name__}): give a local path, or a hub name"
            " with MODELS_MAY_DOWNLOAD=true."
        ) from error
