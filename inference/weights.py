"""Tensors of a safetensors file. Pickled weights are never read."""

from pathlib import Path

import numpy as np


class UnreadableWeights(ValueError):
    """A file of weights is cut short, garbled, or holds values that are no numbers."""


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """All tensors by name. Raises UnreadableWeights, whose message completes the sentence "model.safetensors …"."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UnreadableWeights(f"is corrupt ({type(error).__name__})") from error
    broken = [name for name, tensor in weights.items() if tensor.dtype.kind == "f" and not np.isfinite(tensor).all()]
    if broken:
        raise UnreadableWeights(f"holds values that are no numbers, first in {broken[0]}")
    return weights
