"""The dashboard in headless Chromium, at two widths, in both themes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.live_server_helper import LiveServer
from selenium import webdriver
from selenium.webdriver.common.by import By

from keys import heartbeat, jobs, leases
from keys.models import RotationRun
from keys.runs import LEASE
from memory import metrics
from project.dashboard.recorder import Recorder
from tests.browser import log_in, look, needs_browser, running_browser, wait_for
from tests.factories import remember
from tests.project.dashboard.seeding import seed_hours

pytestmark = [pytest.mark.django_db(transaction=True), needs_browser]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with running_browser(tmp_path) as driver:
        yield driver


def test_nothing_a_good_day_and_a_bad_one(browser: webdriver.Chrome, live_server: LiveServer) -> None:
    log_in(browser, live_server)
    wait_for(browser, "No process has recorded anything yet")
    look(browser, "dashboard-empty")

    seed_hours()
    heartbeat.beat("wsgi")
    remember("person:1", "a", "one", "two")
    for job in jobs.Job:
        jobs.record(job)
    recorder = Recorder()
    recorder.record()
    browser.get(f"{live_server.url}/admin/")
    wait_for(browser, "All is well")
    look(browser, "dashboard")
    browser.find_element(By.LINK_TEXT, "30 days").click()
    wait_for(browser, "Queries in 5 hours")
    look(browser, "dashboard-month")

    metrics.INTEGRITY_FAILURES.inc()
    recorder.tell()
    RotationRun.objects.create(
        kind="encryption", state="running", phase="reseal", rows_total=240_000, rows_done=91_000, rate=17_300.0
    )
    with leases.hold(LEASE):
        browser.get(f"{live_server.url}/admin/")
        wait_for(browser, "1 seal did not open")
        look(browser, "dashboard-bad")
