"""A debug page shows settings, and none that holds a secret."""

from typing import Any

from django.test import RequestFactory
from django.views.debug import ExceptionReporter


def test_passwords_in_urls_and_keys_are_hidden(settings: Any) -> None:
    settings.DEBUG = True
    planted = "PLANTED-PASSWORD"
    settings.CACHE_URL = f"redis://user:{planted}@cache/0"
    settings.CACHES = {**settings.CACHES, "other": {"LOCATION": f"redis://user:{planted}@cache/0"}}
    settings.RERANK_REMOTE_URL = f"https://user:{planted}@rerank"
    settings.METRICS_TOKEN = planted
    settings.DATABASE_ROLES = {"app": {"password": planted}}
    request = RequestFactory().get("/")
    page = ExceptionReporter(request, ValueError, ValueError("x"), None).get_traceback_html()
    assert "MEMORY_ENCRYPTION_KEY" in page and "RERANK_REMOTE_URL" in page
    for secret in (planted, settings.MEMORY_ENCRYPTION_KEY, settings.MEMORY_TENANT_HMAC_KEY, settings.SECRET_KEY):
        assert secret not in page
