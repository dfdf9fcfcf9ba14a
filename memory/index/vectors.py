"""Checks embeddings, and turns them into the form in which they are stored and compared."""

from collections.abc import Sequence

import numpy as np
from cryptography.exceptions import InvalidTag
from django.conf import settings

from memory.exceptions import InvalidDocument
from memory.index.recipe import Recipe, configured
from memory.index.vector_rotation import rotation_for
from memory.sealing.codecs import VectorCodec
from memory.sealing.subkeys import rotation_subkey


def as_embedding(value: Sequence[float] | np.ndarray, field: str = "embedding") -> np.ndarray:
    """A client's vector as float32 of shape (MEMORY_EMBEDDING_DIM,).

    Raises InvalidDocument naming `field` for a wrong dimension, NaN, infinity (also by overflow of float32) or a zero
    vector, which has no direction and so no cosine.
    """
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise InvalidDocument(field, "must be a list of numbers.") from None
    if vector.shape != (settings.MEMORY_EMBEDDING_DIM,):
        raise InvalidDocument(field, f"must have exactly {settings.MEMORY_EMBEDDING_DIM} numbers.")
    if not np.isfinite(vector).all():
        raise InvalidDocument(field, "must be finite numbers.")
    if not vector.any():
        raise InvalidDocument(field, "must not be the zero vector.")
    return vector


def original_from(data: bytes) -> np.ndarray:
    """The original embedding out of an opened seal: float32 (MEMORY_EMBEDDING_DIM,). Raises InvalidTag for others."""
    vector = VectorCodec().decode(data)
    if vector.shape != (settings.MEMORY_EMBEDDING_DIM,):
        raise InvalidTag
    return vector


def as_embeddings(values: Sequence[Sequence[float] | np.ndarray], fields: Sequence[str]) -> np.ndarray:
    """As `as_embedding` for many at once: float32 of shape (n, d). An error about `values[i]` names `fields[i]`.

    All are checked together, a tenth of the time; only when something is wrong are they looked at one by one.
    """
    try:
        with np.errstate(over="ignore"):
            vectors = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        vectors = np.empty(0, dtype=np.float32)
    expected = (len(values), settings.MEMORY_EMBEDDING_DIM)
    if vectors.shape == expected and np.isfinite(vectors).all() and vectors.any(axis=1).all():
        return vectors
    return np.stack([as_embedding(value, field) for value, field in zip(values, fields, strict=True)])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of shape (n, d) or (d,) scaled to length 1, float32. An inner product is then a cosine."""
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=-1, keepdims=True), dtype=np.float32)


def searchable(vectors: np.ndarray, user_hash: str, recipe: Recipe | None = None) -> np.ndarray:
    """Original embeddings, shape (n, d) or (d,), as the tenant's index stores and compares them: float32, unit length,
    turned by the tenant's rotation where its recipe (the configured one, when none is given) says so.

    The one place where stored and query vectors get their form, so that the two can never differ.
    """
    units = unit(vectors)
    if not (recipe or configured()).rotation:
        return units
    return rotation_for(rotation_subkey(user_hash), units.shape[-1]).apply(units)
