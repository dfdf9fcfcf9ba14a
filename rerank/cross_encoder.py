"""The loaded model as sentence-transformers' CrossEncoder is used: `predict` and `rank`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rerank.backends import Backend

Pair = tuple[str, str] | list[str]


class LoadedCrossEncoder:
    """`predict` and `rank` with the shapes and defaults of sentence-transformers 6.2, whatever the backend.

    Straight to the model: without queue, deadline and breaker. No progress bar is ever drawn, and a softmax over one
    label is refused nowhere and changes nothing, as there.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def device(self) -> str:
        return self.backend.device

    def predict(
        self,
        inputs: Sequence[Pair] | Pair,
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
    ) -> Any:
        """Scores of (query, passage) pairs: float32 (pairs,); one scalar for one bare pair.

        As a numpy array, a tensor (`convert_to_tensor`), or a list of scalar tensors (neither). `activation_fn` takes
        and gives a tensor; without it the model's own is applied: none for ms-marco models, whose logits come out raw.
        """
        single = bool(len(inputs)) and isinstance(inputs[0], str)
        pairs: list[Any] = [inputs] if single else list(inputs)
        scores = self._activate(self._logits(pairs, batch_size), activation_fn)
        if convert_to_tensor or not convert_to_numpy:
            import torch

            tensor = torch.from_numpy(scores)
            converted: Any = tensor if convert_to_tensor else list(tensor)
        else:
            converted = scores
        return converted[0] if single else converted

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
    ) -> list[dict[str, Any]]:
        """[{"corpus_id", "score"}, …], best first, with each "text" too when `return_documents`."""
        scores = self.predict(
            [(query, document) for document in documents], batch_size=batch_size, activation_fn=activation_fn
        ).tolist()
        ranked = [{"corpus_id": index, "score": score} for index, score in enumerate(scores)]
        if return_documents:
            ranked = [row | {"text": documents[index]} for index, row in enumerate(ranked)]
        return sorted(ranked, key=lambda row: row["score"], reverse=True)[:top_k]

    def _logits(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> np.ndarray:
        """Batched by falling length, so that little of a batch is padding."""
        logits = np.empty(len(pairs), dtype=np.float32)
        by_length = sorted(range(len(pairs)), key=lambda index: -sum(len(text or "") for text in pairs[index]))
        for start in range(0, len(pairs), batch_size):
            batch = by_length[start : start + batch_size]
            logits[batch] = self.backend.predict([(pairs[index][0], pairs[index][1]) for index in batch])
        return logits

    def _activate(self, logits: np.ndarray, activation_fn: Callable[[Any], Any] | None) -> np.ndarray:
        if activation_fn is None and self.backend.gives_logits:
            return logits
        import torch

        scores: np.ndarray = (activation_fn or torch.nn.Sigmoid())(torch.from_numpy(logits)).numpy()
        return scores
