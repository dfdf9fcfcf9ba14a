"""Admin pages of keys, rotations and maintenance: facts, and buttons that ask for work. No key material is shown.

Nothing long runs in a request: a button leaves a request in the database, which a worker takes up.
"""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST
from unfold.admin import ModelAdmin
from unfold.decorators import display

from keys import jobs, leases
from keys.exceptions import JobRefused, RotationRefused
from keys.held_keys import held_keys
from keys.jobs import Job
from keys.models import JobRecord, KeyRecord, Purpose, RotationRun
from keys.runs import LEASE, FailedRow, cancel_rotation, request_rotation
from keys.status import KeyFacts, KeyReport, key_report

KEY_COLOURS = {"sealing": "success", "hashing": "success", "accepted": "info", "unknown": "danger", "past": "default"}
RUN_COLOURS = {
    RotationRun.State.REQUESTED: "info",
    RotationRun.State.RUNNING: "primary",
    RotationRun.State.INTERRUPTED: "warning",
    RotationRun.State.FINISHED: "success",
    RotationRun.State.FAILED: "danger",
    RotationRun.State.CANCELLED: "default",
}
JOB_COLOURS = {
    jobs.REQUESTED: "info",
    jobs.RUNNING: "primary",
    jobs.STOPPED: "warning",
    jobs.ENDED: "success",
    jobs.NEVER: "default",
}
JOB_TELLS = {
    Job.VERIFY: "Opens every row and compares it with the index. Reads everything, beside what is served.",
    Job.PURGE: "Deletes what has expired; a worker does it once an hour by itself.",
    Job.BACKUP: "Made by the role memory_backup, which no serving process has: docs/howto/backup.md.",
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
        report = key_report(count=False)
        context = {
            **self.admin_site.each_context(request),
            "title": "Keys",
            "opts": self.model._meta,
            "report": report,
            "table": {"headers": _HEADERS, "rows": [_cells(key) for key in report.keys]},
            "processes": _process_table(report),
            "rotations": [_rotation(Purpose.ENCRYPTION, report.run), _rotation(Purpose.HMAC, report.hmac_run)],
            "may_request": request.user.has_perm("keys.add_rotationrun"),
        }
        response = TemplateResponse(request, "keys/admin_keys.html", context)
        return _refreshing(response, report.run, report.hmac_run)


@admin.register(RotationRun)
class RotationRunAdmin(ReadOnlyAdmin):
    list_display = (
        "number", "shown_state", "shown_progress", "shown_rate", "shown_left", "rows_failed", "who", "requested_at",
    )  # fmt: skip
    list_filter = ("kind", "state")
    fields = (
        "kind", "state", "shown_progress", "shown_rate", "shown_left", "from_key_ids", "to_key_id", "verified",
        "message", "rows_failed", "shown_failures", "requested_by", "requested_at", "started_by", "started_at",
        "updated_at", "finished_at",
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

    @display(description="Time left")
    def shown_left(self, run: RotationRun) -> str:
        return _time_left(run)

    def get_urls(self) -> list[URLPattern]:
        def post(view: Any) -> Any:
            return self.admin_site.admin_view(require_POST(view))

        return [
            path("request/<str:kind>/", post(self.request_view), name="keys_rotationrun_request"),
            path("cancel/<str:kind>/", post(self.cancel_view), name="keys_rotationrun_cancel"),
            *super().get_urls(),
        ]

    def request_view(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Ask for a rotation; the command's `--watch` worker takes it up."""
        purpose = _purpose(request, kind)
        try:
            run = request_rotation(purpose, requested_by=request.user.get_username())
        except RotationRefused as refusal:
            messages.warning(request, str(refusal))
        else:
            _log(request, run, ADDITION, "Requested a rotation.")
            command = f"manage.py {held_keys(purpose).command} --watch"
            messages.success(request, f"Requested. A worker ({command}) will take it up.")
        return redirect("admin:keys_rotationrun_changelist")

    def cancel_view(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Close the open rotation; whoever works on it stops within a second."""
        try:
            run = cancel_rotation(_purpose(request, kind), cancelled_by=request.user.get_username())
        except RotationRefused as refusal:
            messages.warning(request, str(refusal))
        else:
            _log(request, run, CHANGE, "Cancelled the rotation.")
            messages.success(request, "Cancelled. What has moved stays; keep the old key accepted.")
        return redirect("admin:keys_rotationrun_changelist")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        newest = [RotationRun.objects.filter(kind=purpose).first() for purpose in Purpose]
        rotations = [_rotation(purpose, run) for purpose, run in zip(Purpose, newest, strict=True)]
        may_request = request.user.has_perm("keys.add_rotationrun")
        extra = {"may_request": may_request, "rotations": rotations, **(extra_context or {})}
        return _refreshing(super().changelist_view(request, extra), *newest)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        run = RotationRun.objects.filter(pk=object_id).first() if object_id and object_id.isdigit() else None
        return _refreshing(super().changeform_view(request, object_id, form_url, extra_context), run)


@admin.register(JobRecord)
class JobAdmin(ReadOnlyAdmin):
    """One page of the maintenance jobs: how each ended last, and buttons that ask for one."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name="keys_jobrecord_changelist"),
            path("request/<str:name>/", view(require_POST(self.request_view)), name="keys_jobrecord_request"),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        records = {record.name: record for record in JobRecord.objects.all()}
        shown = [_job(job, records.get(job)) for job in (Job.VERIFY, Job.PURGE, Job.BACKUP)]
        context = {
            **self.admin_site.each_context(request),
            "title": "Maintenance",
            "opts": self.model._meta,
            "jobs": shown,
            "may_request": request.user.has_perm("keys.add_jobrecord"),
        }
        response = TemplateResponse(request, "keys/admin_jobs.html", context)
        if any(job["state"] in (jobs.REQUESTED, jobs.RUNNING) for job in shown):
            response["Refresh"] = REFRESH_SECONDS
        return response

    def request_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Ask for a job; a worker takes it up within seconds."""
        if not request.user.has_perm("keys.add_jobrecord"):
            raise PermissionDenied
        if name not in jobs.REQUESTABLE:
            raise Http404
        try:
            jobs.request(Job(name), requested_by=request.user.get_username())
        except JobRefused as refusal:
            messages.warning(request, str(refusal))
        else:
            _log(request, JobRecord.objects.get(name=name), ADDITION, f"Requested a {name}.")
            messages.success(request, "Requested. A worker takes it up within seconds.")
        return redirect("admin:keys_jobrecord_changelist")


def _purpose(request: HttpRequest, kind: str) -> Purpose:
    if not request.user.has_perm("keys.add_rotationrun"):
        raise PermissionDenied
    if kind not in Purpose:
        raise Http404
    return Purpose(kind)


def _log(request: HttpRequest, done_to: Model, flag: int, message: str) -> None:
    LogEntry.objects.log_actions(request.user.pk or 0, [done_to], flag, change_message=message, single_object=True)


def _rotation(purpose: Purpose, run: RotationRun | None) -> dict[str, Any]:
    """A purpose's card: its last run, whether it is open, and what asks for one or follows it."""
    is_open = run is not None and run.state in RotationRun.OPEN
    return {
        "purpose": purpose,
        "title": f"{Purpose(purpose).label[0].upper()}{Purpose(purpose).label[1:]} rotation",
        "run": run,
        "is_open": is_open,
        "is_worked_on": is_open and leases.is_held(LEASE),
        "progress": _progress(run) if run else "",
        "time_left": _time_left(run) if run else "",
        "command": held_keys(purpose).command,
        "variables": (held_keys(purpose).variable, held_keys(purpose).accepted_variable),
    }


def _time_left(run: RotationRun) -> str:
    """`4 min` of the present pass; a dash unless rows are being done."""
    if run.seconds_left is None:
        return "–"
    minutes, hours = run.seconds_left / 60, run.seconds_left / 3600
    if minutes < 1:
        return "under a minute"
    return f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _job(job: Job, record: JobRecord | None) -> dict[str, Any]:
    state = jobs.NEVER if record is None else jobs.state(record)
    failed = state == jobs.ENDED and record is not None and not record.succeeded
    return {
        "name": job.value,
        "tells": JOB_TELLS[job],
        "state": state,
        "label": _label("found something" if failed else state, "danger" if failed else JOB_COLOURS[state]),
        "record": record,
        "percent": f"{min(100.0, 100 * record.done / record.total):.1f}" if record and record.total else "",
        "may_be_requested": job in jobs.REQUESTABLE and state not in (jobs.REQUESTED, jobs.RUNNING),
    }


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


def _refreshing(response: Any, *runs: RotationRun | None) -> Any:
    """Make the browser reload the page while a rotation is requested or runs."""
    if any(run and run.state in (RotationRun.State.REQUESTED, RotationRun.State.RUNNING) for run in runs):
        response["Refresh"] = REFRESH_SECONDS
    return response
