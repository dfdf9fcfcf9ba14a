"""Caches the embeddings of a public collection in a folder between runs. They are never a user's.

One SQLite file, {key of model, kind and text: float32 bytes}, written batch by batch: a run that was stopped goes on
where it stopped, a text that stands in two collections is embedded once, and two runs may share the folder.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import numpy as np
from django.conf import settings

from memory.benchmarks.command import progress
from memory.exceptions import EmbeddingModelUnavailable, NoEmbedding
from memory.index.embedders import Kind
from memory.index.embedding import embed_passages, embed_questions

BATCH = 256
FILE = "embeddings.sqlite3"
KEYS_A_QUERY = 500  # parameters of one SELECT
EMBED = {Kind.PASSAGE: embed_passages, Kind.QUESTION: embed_questions}


def embeddings(
    texts: Sequence[str], label: str, *, cache: Path | None, kind: Kind = Kind.PASSAGE, verbosity: int = 1
) -> np.ndarray:
    """Vectors of the texts, float32 (n, d), of which those in the folder `cache` are read and the others written."""
    if cache is None:
        return _stacked([vectors for _, vectors in _embedded(texts, label, kind, verbosity)])
    cache.mkdir(parents=True, exist_ok=True)
    keys = [_key(text, kind) for text in texts]
    with closing(sqlite3.connect(cache / FILE, timeout=60)) as file:
        file.execute("CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
        known = _read(file, keys)
        missing = [text for text, key in dict(zip(texts, keys, strict=True)).items() if key not in known]
        for batch, vectors in _embedded(missing, label, kind, verbosity):
            rows = {_key(text, kind): vector.tobytes() for text, vector in zip(batch, vectors, strict=True)}
            with file:
                file.executemany("INSERT OR IGNORE INTO embeddings VALUES (?, ?)", rows.items())
            known |= rows
    return _stacked([np.frombuffer(known[key], dtype=np.float32)[None] for key in keys])


def _embedded(
    texts: Sequence[str], label: str, kind: Kind, verbosity: int
) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    batches = [texts[first : first + BATCH] for first in range(0, len(texts), BATCH)]
    for batch in progress(batches, f"Embedding {len(texts):,} {label}", verbosity=verbosity, unit="batch"):
        yield batch, np.asarray(_patiently(batch, kind), dtype=np.float32)


def _patiently(texts: Sequence[str], kind: Kind) -> np.ndarray:
    """Embeddings, once more where the deadline passed: a process that was stopped for a while need not start anew."""
    try:
        return EMBED[kind](texts)
    except EmbeddingModelUnavailable as error:
        if error.reason is not NoEmbedding.TIMEOUT:
            raise
        return EMBED[kind](texts)


def _read(file: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for first in range(0, len(keys), KEYS_A_QUERY):
        part = keys[first : first + KEYS_A_QUERY]
        marks = ",".join("?" * len(part))
        found |= dict(file.execute(f"SELECT key, vector FROM embeddings WHERE key IN ({marks})", part))  # noqa: S608
    return found


def _stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty((0, settings.MEMORY_EMBEDDING_DIM), dtype=np.float32)


def _key(text: str, kind: Kind) -> bytes:
    model = settings.MEMORY_EMBEDDING_MODEL.encode("utf-8")
    if kind is Kind.QUESTION:  # which some models embed behind another prompt
        model += b"\0" + kind.value.encode()
    return sha256(len(model).to_bytes(8, "big") + model + text.encode("utf-8")).digest()[:16]
