"""The GPU gate, with torch's answers faked at the seam: this suite runs on machines that have none."""

import pytest
import torch
from django.core.checks import run_checks
from django.test import Client
from pytest_django import Settings

from rerank import gpu, runtime, startup
from rerank.checks import check_settings
from rerank.loading import resolve_device
from rerank.outcomes import GPURequired, ModelUnavailable


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA Fake")


class TestDevice:
    def test_usable(self, one_gpu: None) -> None:
        assert gpu.why_unusable("cuda") == gpu.why_unusable("cuda:0") == ""
        assert "none of the 1 CUDA devices" in gpu.why_unusable("cuda:1")
        assert resolve_device("auto", "torch") == "cuda:0"
        with pytest.raises(ModelUnavailable, match="cuda:1"):
            resolve_device("cuda:1", "torch")

    def test_unusable(self, no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "sees no CUDA device" in gpu.why_unusable("cuda:0")
        monkeypatch.setattr(torch.version, "cuda", None)
        assert "build without CUDA" in gpu.why_unusable("cuda:0")
        assert resolve_device("auto", "auto") == "cpu"

    def test_onnx_on_a_cuda_device_is_an_error_and_not_silence(self, one_gpu: None, settings: Settings) -> None:
        settings.RERANK_BACKEND, settings.RERANK_DEVICE = "onnx", "cuda:0"
        assert [message.id for message in check_settings()] == ["rerank.E005"]
        with pytest.raises(ModelUnavailable, match="RERANK_DEVICE=cuda:0"):
            resolve_device("cuda:0", "onnx")
        settings.RERANK_DEVICE = "auto"
        assert check_settings() == []
        assert resolve_device("auto", "onnx") == "cpu"


class TestRequirement:
    @pytest.fixture(autouse=True)
    def _required(self, settings: Settings) -> None:
        settings.RERANK_REQUIRE_GPU = True

    def test_without_a_device_check_start_and_load_refuse(self, no_gpu: None) -> None:
        (error,) = [message for message in run_checks() if message.id.startswith("rerank.")]
        assert error.id == "rerank.E006" and "sees no CUDA device" in error.msg
        with pytest.raises(GPURequired, match="RERANK_REQUIRE_GPU"):
            startup.begin_serving()
        with pytest.raises(ModelUnavailable, match="RERANK_REQUIRE_GPU"):
            runtime.reset().load_now()

    @pytest.mark.parametrize(("name", "value"), [("BACKEND", "onnx"), ("BACKEND", "remote"), ("DEVICE", "cpu")])
    def test_settings_that_never_use_it_fail_too(
        self, name: str, value: str, one_gpu: None, settings: Settings
    ) -> None:
        setattr(settings, f"RERANK_{name}", value)
        assert value in gpu.why_requirement_fails()

    def test_with_a_device_all_pass(self, one_gpu: None) -> None:
        assert check_settings() == []
        gpu.assert_required_gpu()

    @pytest.mark.django_db
    def test_readyz_fails_without_and_passes_with(self, no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
        response = Client().get("/readyz")
        assert response.status_code == 503
        assert response.json()["parts"]["gpu"] == "failing"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        assert Client().get("/readyz").json()["parts"]["gpu"] == "ok"


def test_not_required_readyz_does_not_speak_of_it(db: None, no_gpu: None) -> None:
    assert "gpu" not in Client().get("/readyz").json()["parts"]
