"""Caches the embeddings of a public collection in a folder between runs. They are never a user's."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from django.conf import settings

from memory.benchmarks.command import progress
from memory.index.embedding import embed_passages

BATCH = 256


def embeddings(texts: Sequence[str], label: str, *, cache: Path | None, verbosity: int = 1) -> np.ndarray:
    """Vectors of the texts, float32 (n, d), read from or written to `cache` under a name made of model and texts."""
    path = cache / f"{label}-{_digest(texts)}.npy" if cache else None
    if path and path.is_file():
        return np.asarray(np.load(path))
    batches = [texts[first : first + BATCH] for first in range(0, len(texts), BATCH)]
    bar = progress(batches, f"Embedding {len(texts):,} {label}", verbosity=verbosity, unit="batch")
    vectors = np.concatenate([embed_passages(batch) for batch in bar])
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.save(file, vectors)
    return vectors


def _digest(texts: Sequence[str]) -> str:
    digest = sha256(settings.MEMORY_EMBEDDING_MODEL.encode("utf-8"))
    for text in texts:
        digest.update(len(text).to_bytes(8, "big") + text.encode("utf-8"))
    return digest.hexdigest()[:16]
