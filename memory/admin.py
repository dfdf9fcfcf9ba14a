"""The admin's view of who may call. Memories are not here: no page of the admin opens a seal."""

from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.models import Permission
from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from memory.access.scopes import ALL, TokenScope
from memory.access.tokens import ACT_FOR_USERS, MAX_DAYS, AccessToken, ServiceAccount

STATE_COLOURS = {"active": "success", "expired": "warning", "revoked": "danger"}


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state.capitalize()) for state in STATE_COLOURS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AccessToken]) -> QuerySet[AccessToken]:
        match self.value():
            case "revoked":
                return queryset.filter(revoked_at__isnull=False)
            case "expired":
                return queryset.filter(revoked_at__isnull=True, expiry__lte=timezone.now())
            case "active":
                return queryset.filter(revoked_at__isnull=True).exclude(expiry__lte=timezone.now())
        return queryset


class NewTokenForm(forms.ModelForm):
    """Whose, what for, for how long. The secret is made on saving."""

    days = forms.IntegerField(
        min_value=0,
        max_value=MAX_DAYS,
        help_text="Days until it expires; 0 for never.",
        widget=UnfoldAdminTextInputWidget,
    )

    scopes = forms.MultipleChoiceField(
        choices=TokenScope.choices,
        initial=ALL,
        help_text="What it may do with the memories that it reaches.",
        widget=forms.CheckboxSelectMultiple,
    )

    class Meta:
        model = AccessToken
        fields = ("user", "label")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["days"].initial = settings.MEMORY_TOKEN_DAYS


@admin.register(AccessToken)
class AccessTokenAdmin(ModelAdmin):
    list_display = ("prefix", "holder", "label", "shown_scopes", "shown_state", "last_used_at", "expiry", "created")
    list_filter = (StateFilter, "user__service_account")
    search_fields = ("token_key", "label", "user__username", "user__service_account__namespace")
    list_select_related = ("user__service_account",)
    autocomplete_fields = ("user",)
    actions = ("revoke",)
    readonly_fields = (
        "prefix",
        "user",
        "shown_scopes",
        "shown_state",
        "created",
        "expiry",
        "last_used_at",
        "revoked_at",
    )
    fields = ("label", *readonly_fields)

    @admin.display(description="Token", ordering="token_key")
    def prefix(self, token: AccessToken) -> str:
        return f"{token.token_key}…"

    def get_queryset(self, request: HttpRequest) -> QuerySet[AccessToken]:
        """Tokens, with whether their account may act for users: asked once, not for each row."""
        of_account = Q(user=OuterRef("user")) | Q(group__user=OuterRef("user"))
        acts = Permission.objects.filter(of_account, codename=ACT_FOR_USERS)
        return super().get_queryset(request).annotate(account_acts=Exists(acts))

    @admin.display(description="Service or account", ordering="user__username")
    def holder(self, token: AccessToken) -> str:
        service = getattr(token.user, "service_account", None)
        return str(token.user.get_username()) if service is None else f"service {service.namespace}"

    @admin.display(description="May")
    def shown_scopes(self, token: Any) -> str:
        acts = ["act for users"] if token.account_acts and hasattr(token.user, "service_account") else []
        return ", ".join([*token.scopes, *acts])

    @display(description="State", label=STATE_COLOURS)
    def shown_state(self, token: AccessToken) -> str:
        return token.state

    @admin.action(description="Revoke selected tokens", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[AccessToken]) -> None:
        count = queryset.filter(revoked_at__isnull=True).update(revoked_at=timezone.now())
        self.message_user(request, f"Revoked: {count}.", messages.SUCCESS)

    def get_form(self, request: HttpRequest, obj: AccessToken | None = None, change: bool = False, **kw: Any) -> Any:
        if obj is None:
            kw["form"] = NewTokenForm
        return super().get_form(request, obj, change=change, **kw)

    def get_fields(self, request: HttpRequest, obj: AccessToken | None = None) -> Any:
        return ("user", "label", "scopes", "days") if obj is None else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: AccessToken | None = None) -> Any:
        return () if obj is None else self.readonly_fields

    def save_model(self, request: HttpRequest, obj: AccessToken, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        days = form.cleaned_data["days"]
        row, secret = AccessToken.objects.issue(
            user=obj.user,
            label=obj.label,
            expires_in=timedelta(days=days) if days else None,
            scopes=form.cleaned_data["scopes"],
        )
        # What follows (the log entry, the redirect) is about the row that was made.
        obj.__dict__.update(row.__dict__)
        text = format_html(
            'Copy the token now, it is not shown again: <code style="overflow-wrap: anywhere">{}</code>', secret
        )
        self.message_user(request, text, messages.WARNING)


@admin.register(ServiceAccount)
class ServiceAccountAdmin(ModelAdmin):
    list_display = ("namespace", "user", "acts_for_users", "usable_tokens", "last_used", "rate", "created_at")
    search_fields = ("namespace", "user__username")
    list_select_related = ("user",)
    autocomplete_fields = ("user",)
    fields = ("namespace", "user", "rate")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ServiceAccount]:
        """Services, with their usable tokens and when one of them was last used."""
        tokens, now = "user__auth_token_set", timezone.now()
        unexpired = Q(**{f"{tokens}__expiry": None}) | Q(**{f"{tokens}__expiry__gt": now})
        usable = Count(tokens, filter=unexpired & Q(**{f"{tokens}__revoked_at": None}))
        return super().get_queryset(request).annotate(usable=usable, used_at=Max(f"{tokens}__last_used_at"))

    @admin.display(description="Usable tokens", ordering="usable")
    def usable_tokens(self, service: Any) -> SafeString:
        address = reverse("admin:memory_accesstoken_changelist")
        return format_html(
            '<a href="{}?user__service_account__id__exact={}">{}</a>', address, service.pk, service.usable
        )

    @admin.display(description="Last used", ordering="used_at")
    def last_used(self, service: Any) -> Any:
        return service.used_at

    @display(description="Acts for users", boolean=True)
    def acts_for_users(self, service: ServiceAccount) -> bool:
        return service.may_act_for_users

    def get_readonly_fields(self, request: HttpRequest, obj: ServiceAccount | None = None) -> Any:
        # The namespace is in its users' hashes: another name would be another set of users.
        return () if obj is None else ("namespace", "user")

    def has_delete_permission(self, request: HttpRequest, obj: ServiceAccount | None = None) -> bool:
        return False
