import hashlib
import json
from pathlib import Path

import pytest

from rerank.training.bundle import MOST_BYTES, Served, write_bundle

SERVED = Served("a model", 0.1, 160, True)


def test_the_folder_says_what_is_in_it(body: Path, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "model", b"graph", body / "tokenizer.json", SERVED, "# Card\n")
    assert json.loads((folder / "config.json").read_text()) == {
        "name": "a model",
        "fusion": "weighted",
        "weight": 0.1,
        "max_length": 160,
        "shared_token_types": True,
        "sha256": hashlib.sha256(b"graph").hexdigest(),
    }
    assert (folder / "tokenizer.json").read_bytes() == (body / "tokenizer.json").read_bytes()
    assert (folder / "README.md").read_text() == "# Card\n"


def test_what_is_too_large_for_a_repository_is_refused(body: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bytes"):
        write_bundle(tmp_path / "model", bytes(MOST_BYTES), body / "tokenizer.json", SERVED, "")
    assert not (tmp_path / "model").exists()
