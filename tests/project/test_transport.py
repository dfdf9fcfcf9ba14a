"""How the service meets the network when nothing says otherwise: as in production."""

import os
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import Client


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("INSECURE_HTTP", "DEBUG")}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        env={**inherited, "DJANGO_SETTINGS_MODULE": "project.settings", **environment},
        cwd=django_settings.BASE_DIR,
        capture_output=True,
        text=True,
    )


def test_deploy_check_is_clean_without_any_setting_of_transport() -> None:
    done = manage("check", "--deploy", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stderr


def test_deploy_check_objects_to_plain_http() -> None:
    done = manage("check", "--deploy", "--fail-level", "WARNING", INSECURE_HTTP="true")
    assert done.returncode != 0
    assert "security.W008" in done.stderr


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/api/v1/docs/", 301), ("/admin/", 301)])
def test_plain_http_is_redirected_but_for_probes(settings: Any, path: str, status: int) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert Client().get(path).status_code == status


@pytest.mark.django_db
def test_static_files_are_served_from_the_packages() -> None:
    with closing(Client().get("/static/unfold/css/styles.css")) as style:
        assert style.status_code == 200
