"""The parts of a modular cross-encoder, as its `modules.json` lists them, and the hash over all their weights.

Newer cross-encoders (Ettin's, for one) are a body at the root of the folder and a head of several modules, each in a
folder of its own: `1_Pooling`, `2_Dense`, … A model without `modules.json` is its root alone.
"""

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from rerank.outcomes import ModelUnavailable

MODULES, WEIGHTS = "modules.json", "model.safetensors"
PICKLED = "pytorch_model.bin"
# Classes of other packages could be named there, and would be imported.
TRUSTED = "sentence_transformers."


def module_folders(directory: Path) -> list[Path]:
    """The folders of the model's modules, the root first.

    Raises ModelUnavailable for modules of another package, folders elsewhere, and weights that are pickled.
    """
    folders = [directory]
    for module in _listed(directory / MODULES):
        path, kind = PurePosixPath(str(module.get("path", ""))), str(module.get("type", ""))
        if not kind.startswith(TRUSTED):
            raise ModelUnavailable(f"{MODULES} in {directory} names a module of another package: {kind}.")
        if path.is_absolute() or ".." in path.parts:
            raise ModelUnavailable(f"{MODULES} in {directory} names a folder outside of it.")
        if path.parts:
            folders.append(directory / path)
    for folder in folders:
        if (folder / PICKLED).is_file() and not (folder / WEIGHTS).is_file():
            raise ModelUnavailable(f"{folder} has pickled weights only, which are never read.")
    return folders


def weight_files(directory: Path) -> list[Path]:
    """Every file of weights that loading the model reads, the root's first, the others by name."""
    root, *heads = (folder / WEIGHTS for folder in module_folders(directory))
    return [root, *sorted(path for path in set(heads) if path.is_file())]


def is_modular(directory: Path) -> bool:
    """Whether there is more to the model than its root."""
    return len(module_folders(directory)) > 1


def weights_digest(directory: Path) -> str:
    """SHA-256 of the one file of weights; of several, that of what `sha256sum` prints for them, in their order."""
    files = weight_files(directory)
    if len(files) == 1:
        return sha256_of(files[0])
    lines = "".join(f"{sha256_of(file)}  {file.relative_to(directory).as_posix()}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{path} cannot be read.") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelUnavailable(f"{path} holds no list of modules.")
    return modules
