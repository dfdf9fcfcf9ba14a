"""sentence-transformers' CrossEncoder: fp16 on CUDA, fp32 on the CPU, any architecture it knows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from inference.engine.jobs import Encoded
from rerank.backends.local import LocalBackend
from rerank.backends.pair_tokenizer import Limits, pad
from rerank.outcomes import ModelUnavailable
from rerank.weights.files import ModelFiles


class TorchBackend(LocalBackend):
    """`device` is "cpu", "cuda" or "cuda:N"."""

    name = "torch"

    def __init__(self, files: ModelFiles, limits: Limits, device: str = "cpu") -> None:
        super().__init__(files, limits)
        import torch

        self._torch = torch
        self.device = device
        half = device.startswith("cuda")
        self.dtype = "float16" if half else "float32"
        self.cross_encoder = _load(files, device, torch.float16 if half else torch.float32, limits.pair)
        if self.cross_encoder.num_labels != 1:
            raise ModelUnavailable(f"{files.name} gives {self.cross_encoder.num_labels} labels; a reranker gives one.")
        self.cross_encoder.eval()
        self._wants_types = int(files.config.get("type_vocab_size") or 0) > 1

    def forward(self, pairs: Sequence[Encoded], timeout: float) -> np.ndarray:
        ids, types, lengths = pad(pairs, self._pad_id)
        mask = np.arange(ids.shape[1]) < lengths[:, None]
        inputs = {"input_ids": self._tensor(ids), "attention_mask": self._tensor(mask.astype(np.int32))}
        if self._wants_types:
            inputs["token_type_ids"] = self._tensor(types)
        with self._torch.inference_mode():
            # Through all of its modules: the head of a modular one is not in its body.
            logits = self.cross_encoder(inputs)["scores"]
        scores: np.ndarray = logits.reshape(len(pairs)).float().cpu().numpy()
        return scores

    def _tensor(self, array: np.ndarray) -> Any:
        return self._torch.from_numpy(array).long().to(self.device, non_blocking=True)

    def close(self) -> None:
        if self.device.startswith("cuda"):
            self._torch.cuda.empty_cache()


def _load(files: ModelFiles, device: str, dtype: Any, max_length: int) -> Any:
    from sentence_transformers import CrossEncoder
    from torch import nn

    try:
        return CrossEncoder(
            str(files.directory),
            device=device,
            activation_fn=nn.Identity(),
            max_length=max_length,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": dtype, "use_safetensors": True},
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelUnavailable(f"{files.name} cannot be loaded by torch: {type(error).__name__}.") from error
