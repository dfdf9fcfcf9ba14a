import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import run_checks
from django.test import Client

# /metrics also tells what the database knows.
pytestmark = pytest.mark.django_db
TOKEN = "scrape-me"


def scrape(**headers: str) -> Any:
    return Client(headers=headers).get("/metrics")


def test_metrics_are_closed_by_default_even_to_this_machine() -> None:
    response = Client(REMOTE_ADDR="127.0.0.1").get("/metrics")
    assert response.status_code == 403
    assert response["Content-Type"] == "application/problem+json"


def test_token_opens_metrics_and_no_other_does(settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN
    assert scrape(Authorization=f"Bearer {TOKEN}").status_code == 200
    for wrong in ("Bearer ", "Bearer", "Bearer scrape-m", f"Basic {TOKEN}", f"Bearer {TOKEN} ", "Bearer \xff"):
        assert scrape(Authorization=wrong).status_code == 403


def test_empty_token_opens_nothing(settings: Any) -> None:
    settings.METRICS_TOKEN = ""
    assert scrape(Authorization="Bearer ").status_code == 403


def test_network_opens_metrics_but_not_through_a_proxy(settings: Any) -> None:
    settings.METRICS_ALLOWED_NETWORKS = ["10.1.0.0/16", "127.0.0.1"]
    assert Client(REMOTE_ADDR="10.1.2.3").get("/metrics").status_code == 200
    assert Client(REMOTE_ADDR="127.0.0.1").get("/metrics").status_code == 200
    assert Client(REMOTE_ADDR="10.2.0.1").get("/metrics").status_code == 403
    assert Client(REMOTE_ADDR="").get("/metrics").status_code == 403
    proxied = Client(REMOTE_ADDR="127.0.0.1", headers={"X-Forwarded-For": "127.0.0.1"})
    assert proxied.get("/metrics").status_code == 403


def test_metrics_name_stages_and_requests(settings: Any) -> None:
    from memory import metrics

    settings.METRICS_TOKEN = TOKEN
    with metrics.stage("query", "embed"):
        pass
    page = scrape(Authorization=f"Bearer {TOKEN}").content.decode()
    assert 'memory_stage_seconds_count{stage="embed",verb="query"}' in page
    assert "memory_integrity_failures_total" in page
    assert "django_http_requests_total_by_method_total" in page


WORKER = """
import django
django.setup()
from memory import metrics
metrics.SEALS.inc(int(__import__("sys").argv[1]))
"""
SCRAPER = """
import django
django.setup()
from django.test import Client
response = Client(headers={"Authorization": "Bearer scrape-me"}, SERVER_NAME="localhost").get("/metrics")
assert response.status_code == 200, response
print(response.content.decode())
"""


def test_one_scrape_tells_of_all_processes(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "METRICS_TOKEN": TOKEN,
        "DJANGO_SETTINGS_MODULE": "project.settings",
    }

    def run(script: str, *arguments: str) -> str:
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(
            command, env=environment, cwd=django_settings.BASE_DIR, check=True, capture_output=True, text=True
        )
        return done.stdout

    run(WORKER, "3")
    run(WORKER, "4")
    assert "memory_seals_total 7.0" in run(SCRAPER)


def test_gauges_of_a_dead_worker_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    configuration = runpy.run_path(str(django_settings.BASE_DIR / "project" / "gunicorn.py"))
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    assert folder.parent == tmp_path
    (folder / "gauge_liveall_41.db").touch()

    class Worker:
        pid = 41

    configuration["child_exit"](None, Worker())
    assert not list(folder.glob("*.db"))


def test_network_that_is_none_is_an_error(settings: Any) -> None:
    settings.METRICS_ALLOWED_NETWORKS = ["10.0.0.0/8", "::1"]
    assert "project.E011" not in {message.id for message in run_checks()}
    settings.METRICS_ALLOWED_NETWORKS = ["10.0.0.0/99"]
    assert "project.E011" in {message.id for message in run_checks()}


def test_the_rerankers_figures_follow_the_same_rule(settings: Any) -> None:
    url = "/api/v1/rerank/metrics"
    refused = Client().get(url)
    assert refused.status_code == 403
    assert refused["Content-Type"] == "application/problem+json"
    settings.METRICS_ALLOWED_NETWORKS = ["10.1.0.0/16"]
    given = Client(REMOTE_ADDR="10.1.2.3").get(url)
    assert given.status_code == 200
    assert given.json().keys() >= {"rerank_skipped_total", "rerank_latency_ms", "device", "enabled", "breaker"}
    assert Client(REMOTE_ADDR="10.1.2.3").post(url).status_code == 405


@pytest.mark.django_db
def test_the_token_opens_the_rerankers_figures_although_it_is_nobodys_access_token(settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN
    assert Client(headers={"Authorization": f"Bearer {TOKEN}"}).get("/api/v1/rerank/metrics").status_code == 200
    assert Client(headers={"Authorization": "Bearer wrong"}).get("/api/v1/rerank/metrics").status_code == 403
