"""Clicking through the admin in headless Chromium: the key page, "Request rotation", and the rotation as it runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.live_server_helper import LiveServer
from selenium import webdriver
from selenium.webdriver.common.by import By

from keys import heartbeat, steps, tallies
from keys.models import Purpose, RotationRun
from keys.movers import mover_of
from keys.pace import Pace
from keys.rotation import rotate
from memory.rotation.encryption_key import EncryptionKeyMover
from tests.browser import log_in, look, needs_browser, refusals, running_browser, wait_for
from tests.memory.rotation.rotating import promoted, store_all

pytestmark = [pytest.mark.django_db(transaction=True), needs_browser]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with running_browser(tmp_path) as driver:
        yield driver


@pytest.fixture(autouse=True)
def _unobserved() -> Iterator[None]:
    yield
    steps.observer = None


def test_a_rotation_and_other_work_is_asked_for_and_watched(browser: webdriver.Chrome, live_server: LiveServer) -> None:
    store_all()
    with promoted() as (old, new):
        heartbeat.beat("wsgi")
        for purpose in Purpose:
            tallies.take(mover_of(purpose))
        log_in(browser, live_server)
        browser.get(f"{live_server.url}/admin/keys/keyrecord/")
        wait_for(browser, f"Keep {old.key_id}")
        look(browser, "keys")

        browser.find_element(By.XPATH, "//button[contains(., 'Request rotation')]").click()
        wait_for(browser, "Requested.")
        assert RotationRun.objects.get().requested_by == "root"

        passed: list[str] = []

        def watch(step: str) -> None:
            passed.append(step)
            if passed.count("batch re-sealed") == 5 and step == "batch re-sealed":
                RotationRun.objects.update(rows_done=9, rate=0.1)
                browser.get(f"{live_server.url}/admin/keys/keyrecord/")
                wait_for(browser, "time left of this pass")
                look(browser, "keys-rotating")
                browser.get(f"{live_server.url}/admin/keys/rotationrun/")
                wait_for(browser, "9 of 24 rows")
                look(browser, "runs")
                browser.get(f"{live_server.url}/admin/keys/rotationrun/{RotationRun.objects.get().pk}/change/")
                wait_for(browser, new.key_id)
                look(browser, "run")

        steps.observer = watch
        assert rotate(EncryptionKeyMover(), started_by="shell:worker@host", pace=Pace(batch=3)).verified
        browser.get(f"{live_server.url}/admin/keys/keyrecord/")
        wait_for(browser, f"{old.key_id} may be removed")
        look(browser, "keys-after")
        browser.get(f"{live_server.url}/admin/memory/tenants/")
        wait_for(browser, "3 tenants")
        look(browser, "tenants")
        browser.get(f"{live_server.url}/admin/keys/jobrecord/")
        browser.find_element(By.XPATH, "//button[contains(., 'Verify now')]").click()
        wait_for(browser, "Requested by root")
        look(browser, "jobs")
        browser.get(f"{live_server.url}/admin/rerank/switchchange/")
        browser.find_element(By.NAME, "note").send_keys("the GPU is replaced")
        browser.find_element(By.XPATH, "//button[contains(., 'Switch off')]").click()
        wait_for(browser, "The switch is off.")
        look(browser, "reranker")


PAGES = (
    *("", "auth/user/", "auth/user/add/", "auth/group/add/", "memory/accesstoken/", "memory/accesstoken/add/"),
    *("memory/serviceaccount/add/", "memory/tenants/", "keys/keyrecord/", "keys/rotationrun/"),
    *("keys/jobrecord/", "rerank/switchchange/"),
    *("axes/accessattempt/", "password_change/"),
)


def test_no_page_of_the_admin_wants_what_its_policy_refuses(browser: webdriver.Chrome, live_server: LiveServer) -> None:
    log_in(browser, live_server)
    for page in PAGES:
        browser.get(f"{live_server.url}/admin/{page}")
        assert "Sealed Memory" in browser.title, (page, browser.title)
        assert not refusals(browser), page
    # And the browser does refuse: a policy that is not heeded would pass all of the above.
    browser.execute_script(
        "const made = document.createElement('script'); made.textContent = 'window.ran = 1'; document.body.append(made)"
    )
    assert refusals(browser) and not browser.execute_script("return window.ran")
