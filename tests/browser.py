"""Headless Chromium, and what the tests of the admin's pages do in it.

Skip what uses it where there is no Chromium with its driver (Debian: `apt-get install chromium chromium-driver`). With
SCREENSHOTS set to a folder, `look` keeps each page there, 1440 and 390 pixels wide, light and dark.
"""

import base64
import contextlib
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

from tests.factories import make_user

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
WIDTHS = (1440, 390)
THEMES = ("light", "dark")
PASSWORD = "correct horse battery"

needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")


@contextlib.contextmanager
def running_browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser with an empty profile in this folder, until the block ends."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.set_window_size(1440, 900)
    try:
        yield driver
    finally:
        driver.quit()


def log_in(browser: webdriver.Chrome, server: LiveServer, path: str = "/admin/") -> None:
    """Log in as a superuser, who is made, on the way to this page."""
    make_user("root", is_staff=True, is_superuser=True, password=PASSWORD)
    browser.get(f"{server.url}{path}")
    browser.find_element(By.NAME, "username").send_keys("root")
    browser.find_element(By.NAME, "password").send_keys(PASSWORD)
    browser.find_element(By.CSS_SELECTOR, "[type=submit]").click()
    wait_for(browser, "Keys")


def wait_for(browser: webdriver.Chrome, text: str) -> None:
    """Wait until the page shows this text."""
    # Between two pages the body that was found may be the old one, gone when it is read: look again.
    patient = WebDriverWait(browser, 20, ignored_exceptions=[WebDriverException])
    patient.until(lambda driver: text in driver.find_element(By.TAG_NAME, "body").text)


def refusals(browser: webdriver.Chrome) -> list[str]:
    """What the browser refused on the pages since the last call, by their Content-Security-Policy."""
    entries = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries if "Content Security Policy" in entry["message"]]


def look(browser: webdriver.Chrome, name: str) -> None:
    """No page is wider than its window, on a desk or on a telephone, and none wants what its policy refuses."""
    assert not refusals(browser)
    for width in WIDTHS:
        browser.set_window_size(width, 900)
        # A headless window is never narrower than 500 pixels; the emulated screen is.
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        for theme in THEMES:
            browser.execute_script(f"document.documentElement.classList.toggle('dark', {str(theme == 'dark').lower()})")
            if folder := os.environ.get("SCREENSHOTS"):
                _keep(browser, f"{folder}/{name}-{width}-{theme}.png")
        browser.execute_script("document.documentElement.classList.remove('dark')")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, (name, width)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(WIDTHS[0], 900)


def _keep(browser: webdriver.Chrome, path: str) -> None:
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    Path(path).write_bytes(base64.b64decode(shot["data"]))
