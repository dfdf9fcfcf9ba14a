"""`manage.py train_reranker` from two tiny collections to a folder that can be served."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from inference.session import cpu_session
from memory.management.commands import train_reranker
from tests.memory.training import small
from tests.rerank.training.small import write_body


def train(tmp_path: Path, *arguments: str) -> str:
    out = StringIO()
    folder = tmp_path / "out"
    fixed = ["--minutes=9", "--threads=1", "--layers=1", "--max-length=32", "--verbosity=0", f"--cache={tmp_path}"]
    data = ["--data", str(tmp_path / "posts"), "--held-out", str(tmp_path / "others")]
    call_command("train_reranker", *data, *fixed, f"--output={folder}", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def collections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two collections, and a small body in the place of the bundled embedding model."""
    monkeypatch.setattr(train_reranker, "bundled_directory", lambda: write_body(tmp_path / "body"))
    small.write_posts(tmp_path / "posts")
    small.write_posts(tmp_path / "others", filler="Rain fell.")
    return tmp_path


def test_it_writes_a_model_its_card_and_its_tables_and_goes_on_when_asked(collections: Path) -> None:
    said = train(collections, "--steps=2")
    folder = collections / "out"
    assert f"Written to {folder / 'model'}" in said
    assert "Not to be shipped" in said
    config = json.loads((folder / "model" / "config.json").read_text())
    assert config["fusion"] == "weighted"
    cpu_session((folder / "model" / "model.onnx").read_bytes(), 1)
    card = (folder / "model" / "README.md").read_text()
    assert "posts: made up" in card
    assert "| others | 60 |" in card
    results = json.loads((folder / "results.json").read_text())
    assert {row["name"] for row in results["held_out"]} >= {"posts/conversations", "others", "conversations"}

    mined = (folder / "train.npz").stat().st_mtime_ns
    assert "Resumed at step 2" in train(collections, "--steps=3", "--resume")
    assert (folder / "train.npz").stat().st_mtime_ns == mined
    steps = [json.loads(line)["step"] for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert steps == [2, 3]

    with pytest.raises(CommandError, match="something else"):
        train(collections, "--steps=3", "--resume", "--seed=5")


def test_a_folder_that_is_no_collection_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "posts").mkdir()
    with pytest.raises(CommandError, match="posts"):
        train(tmp_path)
