"""ops/prometheus: rules that Prometheus takes, alerts that fire by their fault, of metrics that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from django.test import Client

from memory import metrics
from tests.factories import person_client

ROOT = Path(__file__).resolve().parent.parent.parent
OPS = ROOT / "ops" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((OPS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def recorded() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((OPS / "rules.yml").read_text())["groups"] for rule in group["rules"]]


def metrics_in(expression: str) -> set[str]:
    """The metrics that an expression asks for: no label, no function, no figure that rules.yml records."""
    bare = re.sub(r"\{[^}]*\}|by \([^)]*\)", " ", expression)
    return set(re.findall(r"(?<![\w:])[a-z]\w*_\w+(?![\w:(])", bare))


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian's package `prometheus` has it)")
    return found


def test_prometheus_takes_the_rules_and_each_alert_fires_by_its_fault(promtool: str) -> None:
    for command in (
        ["check", "rules", "rules.yml", "alerts.yml"],
        ["check", "config", "--syntax-only", "prometheus.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        done = subprocess.run([promtool, *command], cwd=OPS, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_quiet_and_firing() -> None:
    names = {rule["alert"] for rule in alerts()}
    quiet, firing = yaml.safe_load((OPS / "alerts_test.yml").read_text())["tests"][:2]
    assert {case["alertname"] for case in quiet["alert_rule_test"]} == names
    assert firing["promql_expr_test"][0]["exp_samples"][0]["value"] == len(names)


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    linked = {rule["annotations"]["runbook_url"] for rule in alerts()}
    pages = {f"docs/runbooks/{path.name}" for path in RUNBOOKS.glob("*.md")} - {"docs/runbooks/README.md"}
    assert linked == pages
    for rule in alerts():
        page = (ROOT / rule["annotations"]["runbook_url"]).read_text()
        assert f"`{rule['alert']}`" in page
        assert re.findall(r"^## (.+)$", page, re.M) == [
            "What it means",
            "What to look at",
            "What to do",
            "What not to do",
        ]


@pytest.mark.django_db(transaction=True)
def test_every_metric_of_the_rules_is_told_by_the_service(settings: Any) -> None:
    settings.METRICS_TOKEN = "scrape-me"
    person_client().post("/api/v1/memories/query", {"query": "a"}, content_type="application/json")
    metrics.THROTTLED.labels("query")
    page = Client(headers={"Authorization": "Bearer scrape-me"}).get("/metrics").content.decode()
    told = set(re.findall(r"^# TYPE (\S+)", page, re.M)) | set(re.findall(r"^(\w+)[{ ]", page, re.M))
    names = {rule["record"] for rule in recorded()}
    wanted = {name for rule in [*alerts(), *recorded()] for name in metrics_in(rule["expr"])}
    assert len(wanted) > 15
    assert wanted - told == set()
    used = set(re.findall(r"memory:[\w:]+", " ".join(rule["expr"] for rule in alerts())))
    assert used <= names


@pytest.mark.django_db(transaction=True)
def test_the_labels_that_rules_select_exist(settings: Any) -> None:
    settings.METRICS_TOKEN = "scrape-me"
    person_client().post("/api/v1/memories/query", {"query": "a"}, content_type="application/json")
    page = Client(headers={"Authorization": "Bearer scrape-me"}).get("/metrics").content.decode()
    assert re.search(r'django_http_requests_latency_seconds_by_view_method_bucket\{[^}]*view="memories-query"', page)
    assert re.search(r'django_http_responses_total_by_status_total\{status="200"\}', page)


@pytest.mark.parametrize("page", sorted(path.name for path in RUNBOOKS.glob("*.md")))
def test_commands_of_a_page_exist(page: str) -> None:
    text = (RUNBOOKS / page).read_text()
    for name, options in re.findall(r"manage\.py (\w+)((?: --[\w-]+)*)", text):
        parser = _parser(name)
        known = {option for action in parser._actions for option in action.option_strings}
        assert {option for option in options.split() if option.startswith("--")} <= known, name
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert not [link for link in links if not (RUNBOOKS / link).exists()]


def _parser(name: str) -> Any:
    return load_command_class(get_commands()[name], name).create_parser("manage.py", name)


@pytest.mark.django_db(transaction=True)
def test_every_panel_shows_metrics_that_there_are(settings: Any) -> None:
    settings.METRICS_TOKEN = "scrape-me"
    page = Client(headers={"Authorization": "Bearer scrape-me"}).get("/metrics").content.decode()
    told = set(re.findall(r"^# TYPE (\S+)", page, re.M))
    dashboard = json.loads((ROOT / "ops" / "grafana" / "sealed-memory.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 15
    asked = {name.removesuffix("_bucket") for each in expressions for name in metrics_in(each)}
    assert asked - told == set()
    names = {rule["record"] for rule in recorded()}
    assert set(re.findall(r"memory:[\w:]+", " ".join(expressions))) <= names
