"""Where loading begins and ends: serving processes, behind the fork, and a clean end under load."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from rerank import checks, flag, health, runtime, startup
from tests.inference.factories import Gate, wait_until
from tests.rerank.factories import FakeBackend, serve_with

ROOT = Path(__file__).parents[2]


class TestBeginServing:
    def test_a_serving_process_loads_in_the_background(self) -> None:
        gate = Gate()
        served = runtime.reset(runtime.Runtime(load=lambda: gate(()) or FakeBackend()))
        startup.begin_serving()  # returns although the load has not
        assert gate.entered.wait(5)
        assert health.state() == "loading"
        gate.opened.set()
        wait_until(lambda: served.status is runtime.Status.READY)
        assert health.state() == "ok"

    def test_importing_under_a_prefork_server_loads_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gunicorn.arbiter", object())
        served = runtime.reset(runtime.Runtime(load=FakeBackend))
        startup.begin_serving()
        assert not [thread for thread in threading.enumerate() if thread.name == "rerank-start"]
        assert served.status is runtime.Status.IDLE

    @pytest.mark.parametrize("off", ["environment", "switch"])
    def test_nothing_is_loaded_when_off(self, off: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        settings.RERANK_ENABLED = off != "environment"
        monkeypatch.setattr(flag, "switch", flag.Switch(read=lambda: off != "switch"))
        served = runtime.reset(runtime.Runtime(load=FakeBackend))
        startup.begin_serving()
        for thread in threading.enumerate():
            if thread.name == "rerank-start":
                thread.join(5)
        assert served.status is runtime.Status.IDLE
        assert health.state() == "disabled"

    def test_commands_load_nothing(self) -> None:
        served = runtime.reset(runtime.Runtime(load=FakeBackend))
        call_command("check", verbosity=0)
        assert served.status is runtime.Status.IDLE


def test_a_forked_child_begins_with_nothing() -> None:
    engine = serve_with(FakeBackend())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of any fork beside threads, which is the point here
        child = os.fork()
    if not child:
        served = runtime.current()
        os._exit(0 if served.engine is None and served.status is runtime.Status.IDLE else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert runtime.current().engine is engine


class TestHealth:
    def test_unavailable_says_what_to_do(self, settings: Settings, tmp_path: Path) -> None:
        settings.RERANK_MODEL = str(tmp_path / "absent")
        runtime.reset()._load_quietly()
        assert health.state() == "unavailable"
        assert "fetch_models" in str(health.report()["detail"])


class TestFetchModels:
    def test_verifies_a_local_model(self, model_dir: Path, settings: Settings, capsys: pytest.CaptureFixture) -> None:
        settings.RERANK_MODEL, settings.RERANK_GOLDEN = str(model_dir), []
        call_command("fetch_models")
        assert "Verified and ranked with onnx on cpu" in capsys.readouterr().out

    def test_says_what_is_wrong(self, settings: Settings, tmp_path: Path) -> None:
        settings.RERANK_MODEL = str(tmp_path)
        with pytest.raises(CommandError, match=r"config\.json is missing"):
            call_command("fetch_models")


class TestChecks:
    def test_the_defaults_pass(self) -> None:
        assert checks.check_settings() == []

    @pytest.mark.parametrize(
        ("name", "value", "id"),
        [
            ("RERANK_BACKEND", "tensorflow", checks.E_CHOICE),
            ("RERANK_FUSION", "sum", checks.E_CHOICE),
            ("RERANK_FUSION_WEIGHT", -0.1, checks.E_RANGE),
            ("RERANK_DEVICE", "gpu", checks.E_CHOICE),
            ("RERANK_BACKEND", "remote", checks.E_REMOTE),
            ("RERANK_BATCH_SIZE", 33, checks.E_RANGE),
            ("RERANK_QUERY_TOKENS", 500, checks.E_RANGE),
            ("RERANK_GOLDEN", ["one"], checks.E_GOLDEN),
            ("RERANK_CANDIDATES", -1, checks.E_RANGE),
            ("RERANK_POOL_TOKENS", 10, checks.E_RANGE),
            ("RERANK_FALLBACK_MODEL", "/nonexistent/model", checks.E_FALLBACK),
        ],
    )
    def test_what_is_not_understood_is_named(self, name: str, value: Any, id: str, settings: Settings) -> None:
        setattr(settings, name, value)
        (error,) = checks.check_settings()
        assert error.id == id and name in error.msg


def ask(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=20) as response:  # noqa: S310
        return json.load(response)


@contextmanager
def gunicorn(model_dir: Path, tmp_path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The project's own configuration over a small application; the process and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "BIND": f"127.0.0.1:{port}",
        "WEB_CONCURRENCY": "2",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "RERANK_ENABLED": "true",
        "RERANK_MODEL": str(model_dir),
        "RERANK_GOLDEN": "[]",
        "RERANK_BACKEND": "onnx",
        "LOADED_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "project/gunicorn.py", *options, "tests.rerank.prefork_app"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["plain", "preload"])
def test_prefork_workers_load_for_themselves_and_end_cleanly(
    options: tuple[str, ...], model_dir: Path, tmp_path: Path
) -> None:
    with gunicorn(model_dir, tmp_path, *options) as (process, url):
        wait_until(lambda: len(list(tmp_path.glob("loaded-*"))) == 2, seconds=60)  # before any request
        answers = collect(url, process)
        assert all(answer["loaded_by"] == answer["pid"] != process.pid for answer in answers.values())
        statuses: list[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(flood(url))) for _ in range(16)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)  # the queue is full by now
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        for thread in threads:
            thread.join()
        assert 500 not in statuses


def collect(url: str, process: subprocess.Popen[bytes]) -> dict[int, dict[str, Any]]:
    """An answer of each of the two workers once it reranks."""
    answers: dict[int, dict[str, Any]] = {}
    deadline = time.monotonic() + 40
    while len(answers) < 2 and time.monotonic() < deadline and process.poll() is None:
        try:
            answer = ask(url)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
            continue
        if answer["skip_reason"] is None:
            answers[answer["pid"]] = answer
    assert len(answers) == 2
    return answers


def flood(url: str) -> int:
    """Ask until the server is gone; 500 when it ever answered wrongly."""
    while True:
        try:
            if len(ask(url)["order"]) != 24:
                return 500
        except urllib.error.HTTPError as error:
            return error.code
        except (urllib.error.URLError, ConnectionError, TimeoutError, OSError):
            return 0
