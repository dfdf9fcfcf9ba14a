"""Clicking through the admin in headless Chromium: the key page, "Request rotation", and the rotation as it runs.

Skipped where there is no Chromium with its driver (Debian: `apt-get install chromium chromium-driver`). With
SCREENSHOTS set to a folder, the pages are kept there at 1440 and 390 pixels wide.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.live_server_helper import LiveServer
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from keys import heartbeat, steps
from keys.models import RotationRun
from keys.pace import Pace
from keys.rotation import rotate
from memory.rotation.encryption_key import EncryptionKeyMover
from tests.factories import make_user
from tests.memory.rotation.rotating import promoted, store_all

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
WIDTHS = (1440, 390)
PASSWORD = "correct horse battery"

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.set_window_size(1440, 900)
    yield driver
    driver.quit()


@pytest.fixture(autouse=True)
def _unobserved() -> Iterator[None]:
    yield
    steps.observer = None


def log_in(browser: webdriver.Chrome, server: LiveServer) -> None:
    make_user("root", is_staff=True, is_superuser=True, password=PASSWORD)
    browser.get(f"{server.url}/admin/")
    browser.find_element(By.NAME, "username").send_keys("root")
    browser.find_element(By.NAME, "password").send_keys(PASSWORD)
    browser.find_element(By.CSS_SELECTOR, "[type=submit]").click()
    wait_for(browser, "Keys")


def wait_for(browser: webdriver.Chrome, text: str) -> None:
    # Between two pages the body that was found may be the old one, gone when it is read: look again.
    patient = WebDriverWait(browser, 20, ignored_exceptions=[WebDriverException])
    patient.until(lambda driver: text in driver.find_element(By.TAG_NAME, "body").text)


def refusals(browser: webdriver.Chrome) -> list[str]:
    """What the browser refused on the pages since the last call, by their Content-Security-Policy."""
    entries = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries if "Content Security Policy" in entry["message"]]


def look(browser: webdriver.Chrome, name: str) -> None:
    """No page is wider than its window, on a desk or on a telephone."""
    assert not refusals(browser)
    for width in WIDTHS:
        browser.set_window_size(width, 900)
        # A headless window is never narrower than 500 pixels; the emulated screen is.
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        if folder := os.environ.get("SCREENSHOTS"):
            browser.save_screenshot(f"{folder}/{name}-{width}.png")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, (name, width)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(WIDTHS[0], 900)


def test_a_rotation_is_requested_and_watched(browser: webdriver.Chrome, live_server: LiveServer) -> None:
    store_all()
    with promoted() as (old, new):
        heartbeat.beat("wsgi")
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
                RotationRun.objects.update(rows_done=9, rate=17321.0)
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


PAGES = (
    *("", "auth/user/", "auth/user/add/", "auth/group/add/", "memory/accesstoken/", "memory/accesstoken/add/"),
    *("memory/serviceaccount/add/", "memory/tenants/", "keys/keyrecord/", "keys/rotationrun/"),
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
