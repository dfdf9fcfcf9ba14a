"""The operators' switch: its history, with who, when and why, and the reranker's state above it."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin
from unfold.decorators import display

from rerank import flag, health
from rerank.models import SwitchChange


@admin.register(SwitchChange)
class SwitchChangeAdmin(ModelAdmin):
    """Adding a row moves the switch, in every process within two seconds. Nothing is ever changed or deleted."""

    list_display = ("changed_at", "position", "changed_by_name", "note")
    fields = ("enabled", "note")
    list_before_template = "rerank/admin_state.html"
    change_list_template = "rerank/admin_switch.html"

    @display(description="Position", label={"on": "success", "off": "danger"})
    def position(self, change: SwitchChange) -> str:
        return "on" if change.enabled else "off"

    def has_change_permission(self, request: HttpRequest, obj: SwitchChange | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: SwitchChange | None = None) -> bool:
        return False

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Offer the other position: nobody comes here to leave it."""
        latest = SwitchChange.objects.first()
        return {"enabled": latest is not None and not latest.enabled}

    def save_model(self, request: HttpRequest, obj: SwitchChange, form: Any, change: bool) -> None:
        obj.changed_by = request.user  # type: ignore[assignment]
        obj.changed_by_name = request.user.get_username()
        super().save_model(request, obj, form, change)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        extra = {
            "title": "Reranker",
            "rerank": health.report(),
            "is_on": flag.read_switch(),
            "who_decides": flag.who_decides(),
            "may_switch": self.has_add_permission(request),
        }
        return super().changelist_view(request, {**(extra_context or {}), **extra})
