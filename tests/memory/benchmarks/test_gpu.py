"""gpu_check with a fake device: no machine that this was written on has a real one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from django.core.management import CommandError, call_command

from memory.benchmarks import gpu
from rerank import runtime
from tests.rerank.factories import FakeBackend


@pytest.fixture
def fake_device(monkeypatch: pytest.MonkeyPatch, fresh_reranker: None, tmp_path: Path) -> FakeBackend:
    backend = FakeBackend()
    backend.device = "cuda:0"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Fake")
    monkeypatch.setattr(runtime, "reset", lambda: _serve(backend, reset))
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15\n")
    monkeypatch.setattr(gpu, "DRIVER", tmp_path / "version")
    return backend


reset = runtime.reset


def _serve(backend: FakeBackend, reset: Any) -> Any:
    return reset(runtime.Runtime(load=lambda: backend))


def test_prints_device_driver_build_load_time_and_latency_with_its_bounds(
    fake_device: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("gpu_check", "--json")
    report = json.loads(capsys.readouterr().out)
    machine, latency = report["results"]
    assert (machine["device"], machine["driver"]) == ("cuda:0 NVIDIA Fake", "535.104.05")
    assert machine["torch"] == torch.__version__ and machine["load_seconds"] >= 0
    assert latency["queries"] == 100 and latency["p50_ms"] <= latency["p95_ms"] <= latency["p99_ms"]
    assert [target["name"] for target in report["targets"]] == ["p50", "p95", "p99", "load"]


def test_a_missed_bound_is_an_error_after_the_report(
    fake_device: FakeBackend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "_time_queries", lambda: [0.01] * 90 + [0.2] * 10)
    with pytest.raises(CommandError, match=r"Missed: p95\."):
        call_command("gpu_check", "--json")
    assert json.loads(capsys.readouterr().out)["targets"][1]["ok"] is False


def test_a_query_that_was_not_reranked_is_no_measurement(fake_device: FakeBackend) -> None:
    fake_device.misbehave = lambda pairs: [float("nan")] * len(pairs)
    with pytest.raises(RuntimeError, match="nan_scores"):
        call_command("gpu_check")


def test_without_a_device_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CommandError, match=r"CUDA.*docs/howto/gpu\.md"):
        call_command("gpu_check")


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build\n", "560.35.03"),
        ("something else\n", "unknown"),
    ],
)
def test_driver_versions(told: str, version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(told)
    monkeypatch.setattr(gpu, "DRIVER", tmp_path / "version")
    assert gpu._driver() == version
