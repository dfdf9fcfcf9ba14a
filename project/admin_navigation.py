"""The admin's sidebar: every registered model that the person may see, and the page of tenants, which is no model."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse

TITLES = {"SwitchChange": "Reranker"}
"""Of pages that are more than a list of what their model is named after."""


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Groups of links as django-unfold takes them: the first page, then one group an app."""
    overview = {"title": "Overview", "link": reverse("admin:index")}
    return [
        {"items": [overview]},
        *_apps(request),
    ]


def stylesheet(request: HttpRequest) -> str:
    """The address of our own styles."""
    return static("project/dashboard.css")


def _apps(request: HttpRequest) -> list[dict[str, Any]]:
    return [
        {"title": app["name"], "items": [*_models(app), *_further(app["app_label"], request)]}
        for app in admin.site.get_app_list(request)
    ]


def _models(app: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"title": TITLES.get(model["object_name"], model["name"]), "link": model["admin_url"]}
        for model in app["models"]
        if model["admin_url"]
    ]


def _further(app_label: str, request: HttpRequest) -> list[dict[str, Any]]:
    if app_label == "memory" and request.user.has_perm("memory.view_tenant"):
        return [{"title": "Tenants", "link": reverse("admin_tenants")}]
    return []
