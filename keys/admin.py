"""Admin pages of keys and rotations: read-only, with a button that requests a rotation. No key material is shown."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, LogEntry
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST
from unfold.admin import ModelAdmin
from unfold.decorators import display

from keys.exceptions import RotationRefused
from keys.models import KeyRecord, Purpose, RotationRun
from keys.runs import FailedRow, request_rotation
from keys.status import KeyFacts, KeyReport, key_report

KEY_COLOURS = {"sealing": "success", "hashing": "success", "accepted": "info", "unknown": "danger", "past": "default"}
RUN_COLOURS = {
    RotationRun.State.REQUESTED: "info",
    RotationRun.State.RUNNING: "primary",
    RotationRun.State.INTERRUPTED: "warning",
    RotationRun.State.FINISHED: "success",
    RotationRun.State.FAILED: "danger",
}
REFRESH_SECONDS = "3"


class ReadOnlyAdmin(ModelAdmin):
    """Read-only rows: the application alone writes them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(KeyRecord)
class KeyAdmin(ReadOnlyAdmin):
    """One page, the report of `key_status`; a key has no page of its own."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.changelist_view)
        return [path("", view, name="keys_keyrecord_changelist")]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        report = key_report()
        context = {
            **self.admin_site.each_context(request),
            "title": "Keys",
            "opts": self.model._meta,
            "report": report,
            "table": {"headers": _HEADERS, "rows": [_cells(key) for key in report.keys]},
            "processes": _process_table(report),
            "progress": _progress(report.run) if report.run else "",
            "hmac_progress": _progress(report.hmac_run) if report.hmac_run else "",
            "may_request": request.user.has_perm("keys.add_rotationrun"),
        }
        response = TemplateResponse(request, "keys/admin_keys.html", context)
        return _refreshing(response, report.run)


@admin.register(RotationRun)
class RotationRunAdmin(ReadOnlyAdmin):
    list_display = ("number", "shown_state", "shown_progress", "shown_rate", "rows_failed", "who", "requested_at")
    list_filter = ("kind", "state")
    fields = (
        "kind", "state", "shown_progress", "shown_rate", "from_key_ids", "to_key_id", "verified", "message",
        "rows_failed", "shown_failures", "requested_by", "requested_at", "started_by", "started_at", "updated_at",
        "finished_at",
    )  # fmt: skip
    readonly_fields = fields
    list_before_template = "keys/admin_runs_before.html"

    @display(description="Run", ordering="id")
    def number(self, run: RotationRun) -> str:
        return f"{run.get_kind_display()} {run.pk}"

    @display(description="State", ordering="state", label=RUN_COLOURS)
    def shown_state(self, run: RotationRun) -> tuple[str, str]:
        return run.state, run.get_state_display()

    @display(description="Progress")
    def shown_progress(self, run: RotationRun) -> SafeString:
        return _progress(run)

    @display(description="Rate", ordering="rate")
    def shown_rate(self, run: RotationRun) -> str:
        return f"{run.rate:,.0f} rows/s" if run.rate else "–"

    @display(description="Who")
    def who(self, run: RotationRun) -> str:
        return run.started_by if run.started_by == run.requested_by else f"{run.requested_by} → {run.started_by or '…'}"

    @display(description="Rows that failed")
    def shown_failures(self, run: RotationRun) -> SafeString | str:
        rows = ((str(FailedRow(**failure)),) for failure in run.failures)
        return format_html_join("", "<div>{}</div>", rows) or "none"

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.request_view))
        return [path("request/", view, name="keys_rotationrun_request"), *super().get_urls()]

    def request_view(self, request: HttpRequest) -> HttpResponse:
        """Ask for an encryption rotation; a `rotate_encryption_key --watch` worker takes it up."""
        if not request.user.has_perm("keys.add_rotationrun"):
            raise PermissionDenied
        try:
            run = request_rotation(Purpose.ENCRYPTION, requested_by=request.user.get_username())
        except RotationRefused as refusal:
            messages.warning(request, str(refusal))
        else:
            LogEntry.objects.log_actions(
                request.user.pk or 0, [run], ADDITION, change_message="Requested a rotation.", single_object=True
            )
            messages.success(request, "Requested. A worker (manage.py rotate_encryption_key --watch) will take it up.")
        return redirect("admin:keys_rotationrun_changelist")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        newest = RotationRun.objects.first()
        extra = {"may_request": request.user.has_perm("keys.add_rotationrun"), **(extra_context or {})}
        return _refreshing(super().changelist_view(request, extra), newest)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        run = RotationRun.objects.filter(pk=object_id).first() if object_id and object_id.isdigit() else None
        return _refreshing(super().changeform_view(request, object_id, form_url, extra_context), run)


_HEADERS = ["key", "state", "rows", "tenants", "seals", "first seen", "last seen", "processes"]


def _cells(key: KeyFacts) -> Sequence[str]:
    return (
        format_html("<span><code>{}</code> {}</span>", key.key_id, Purpose(key.purpose).label),
        _label(key.state, KEY_COLOURS[key.state]),
        f"{key.row_count:,}",
        f"{key.tenants:,}",
        f"{key.seals:,}" if key.purpose == Purpose.ENCRYPTION else "–",
        f"{key.first_seen:%Y-%m-%d %H:%M}" if key.first_seen else "–",
        f"{key.last_seen:%Y-%m-%d %H:%M}" if key.last_seen else "–",
        str(len(key.processes)),
    )


def _process_table(report: KeyReport) -> dict[str, Any]:
    rows = [
        (
            process["process"],
            format_html("<code>{}</code>", process["sealing"]),
            ", ".join(process["encryption"]),
            ", ".join(process["hmac"]),
            f"{process['seen_at']:%H:%M:%S}",
        )
        for process in report.processes
    ]
    return {"headers": ["process", "seals under", "opens", "HMAC keys", "last seen (UTC)"], "rows": rows}


def _label(text: str, colour: str) -> SafeString:
    return render_to_string("unfold/helpers/label.html", {"text": text, "variant": colour})


def _progress(run: RotationRun) -> SafeString:
    return render_to_string("keys/progress.html", {"run": run, "percent": f"{100 * run.share:.1f}"})


def _refreshing(response: Any, run: RotationRun | None) -> Any:
    """Make the browser reload the page while a rotation is requested or runs."""
    if run is not None and run.state in (RotationRun.State.REQUESTED, RotationRun.State.RUNNING):
        response["Refresh"] = REFRESH_SECONDS
    return response
