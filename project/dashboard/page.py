"""Unfold's DASHBOARD_CALLBACK: what the admin's first page shows."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from project.dashboard import trends
from project.dashboard.attention import Level, attention
from project.dashboard.facts import gather
from project.dashboard.sections import sections

LINKS = {
    "keys": "admin:keys_keyrecord_changelist",
    "runs": "admin:keys_rotationrun_changelist",
    "tenants": "admin_tenants",
    "rerank": "admin:rerank_switchchange_changelist",
    "jobs": "admin:keys_jobrecord_changelist",
    "attempts": "admin:axes_accessattempt_changelist",
    "tokens": "admin:memory_accesstoken_changelist",
}
NEEDED = {
    "keys": "keys.view_keyrecord",
    "runs": "keys.view_rotationrun",
    "tenants": "memory.view_tenant",
    "rerank": "rerank.view_switchchange",
    "jobs": "keys.view_jobrecord",
    "attempts": "axes.view_accessattempt",
    "tokens": "memory.view_accesstoken",
}


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the dashboard to the context: what its reader may see, with links to the pages that the reader may open."""
    facts = gather()
    days = _days(request.GET.get("days", ""))
    may = request.user.has_perm
    lines = [line for line in attention(facts) if not NEEDED.get(line.link) or may(NEEDED[line.link])]
    return context | {
        "title": "Overview",
        "attention": lines,
        "worst": max((line.level for line in lines), default=Level.OK).name.lower(),
        "sections": [section for section in sections(facts) if not section.permission or may(section.permission)],
        "plots": trends.plots(days),
        "days": days,
        "choices": trends.CHOICES,
        "links": {name: reverse(view) for name, view in LINKS.items() if may(NEEDED[name])},
        "now": facts.now,
    }


def _days(given: str) -> int:
    return next((days for days in trends.CHOICES if str(days) == given), trends.CHOICES[0])
