"""Access tokens and the services that hold them.

A token is `smem_` and 64 hex digits of randomness; the table keeps its SHA-512 and its first 15 characters, so a dump
of the table opens nothing. An expired or revoked token stays in the table, as a record of what was valid until when.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone
from knox.models import AbstractAuthToken, AuthTokenManager
from knox.settings import CONSTANTS

from memory.access import token_look_up
from memory.access.identity import BENCHMARK_NAMESPACE
from memory.access.rates import parse_rate
from memory.access.scopes import ALL, TokenScope

LAST_USED_RESOLUTION = timedelta(minutes=1)
ACT_FOR_USERS = "act_for_users"
PERSONS_ACCOUNT = "This account is a person's: it has logged in or holds tokens, and accounts never change their kind."
# The longest life of a token, in days; 0 stands for one that does not expire.
MAX_DAYS = 3650


class AccessTokenManager(AuthTokenManager):
    def issue(
        self,
        *,
        user: Any,
        label: str = "",
        expires_in: timedelta | None = None,
        scopes: Sequence[str] = ALL,
    ) -> tuple["AccessToken", str]:
        """Make a token for `user` that lives `expires_in` (None: for ever). Returns (row, secret); only here is the
        secret ever seen. Raises ValueError for a scope that there is not, or none."""
        if not scopes or not set(scopes) <= set(ALL):
            raise ValueError(f"Scopes are some of {', '.join(ALL)}.")
        row, secret = self.create(user, expiry=expires_in, label=label, scopes=[each for each in ALL if each in scopes])
        return row, secret

    def usable(self) -> "models.QuerySet[AccessToken]":
        """Tokens that are neither expired nor revoked, of active accounts."""
        unexpired = Q(expiry__isnull=True) | Q(expiry__gt=timezone.now())
        return self.filter(unexpired, revoked_at__isnull=True, user__is_active=True)

    def find(self, secret: str) -> "AccessToken | None":
        """The usable token of that secret, its account and service with it, in one query.

        The look-up is by the digest of 256 random bits, so its timing does not help to guess a token. Nothing of it is
        kept: a token that is revoked, or whose account is made inactive, is useless at once in every process.
        """
        return token_look_up.find(self, secret)


class AccessToken(AbstractAuthToken):
    """A bearer credential of one account."""

    # Knox makes the digest the primary key, which would then show in admin URLs and logs.
    id = models.BigAutoField(primary_key=True)
    digest = models.CharField(max_length=CONSTANTS.DIGEST_LENGTH, unique=True, editable=False)
    label = models.CharField(max_length=100, blank=True, help_text="What this token is for.")
    scopes = ArrayField(
        models.TextField(choices=TokenScope),
        db_default=list(ALL),
        help_text="What it may do with the memories that it reaches.",
    )
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    objects = AccessTokenManager()

    class Meta:
        ordering = ("-created",)

    def __str__(self) -> str:
        return f"{self.token_key}… of {self.user}"

    @property
    def state(self) -> str:
        """`revoked`, `expired` or `active`."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expiry and self.expiry <= timezone.now() else "active"

    def revoke(self) -> None:
        """Make the token useless from now on. A second call keeps the first time."""
        type(self).objects.filter(pk=self.pk, revoked_at__isnull=True).update(revoked_at=timezone.now())
        self.refresh_from_db(fields=["revoked_at"])

    def note_use(self) -> None:
        """Record that the token was used just now, writing at most once a minute."""
        now = timezone.now()
        if self.last_used_at is None or now - self.last_used_at >= LAST_USED_RESOLUTION:
            type(self).objects.filter(pk=self.pk).update(last_used_at=now)


class ServiceAccount(models.Model):
    """A program that stores memories of its own users, all of them under one namespace.

    Its account needs the permission `memory.act_for_users` to name a user in `X-Memory-User`. The row stays when the
    account is deleted, and the application may not delete it: a later service with the same namespace would inherit its
    users' memories.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="service_account"
    )
    namespace = models.SlugField(max_length=64, unique=True, help_text="First part of its users' ids; fixed once used.")
    rate = models.CharField(
        "budget",
        max_length=20,
        blank=True,
        default="",
        db_default="",
        help_text="Calls of all its tokens together, such as 20000/min. Empty: MEMORY_THROTTLE_TOKEN for each token.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("namespace",)
        constraints = [
            models.CheckConstraint(
                condition=Q(rate__regex=r"^([1-9][0-9]*/(s|min|h|d))?$"), name="memory_serviceaccount_rate"
            ),
        ]
        permissions = [(ACT_FOR_USERS, "Can act for the users in its service's namespace")]

    def __str__(self) -> str:
        return self.namespace

    def clean(self) -> None:
        if self.user and (self.user.is_staff or self.user.is_superuser):
            raise ValidationError({"user": "A service's account is neither staff nor superuser."})
        if self.user and self._state.adding and is_persons(self.user):
            raise ValidationError({"user": PERSONS_ACCOUNT})
        self._refuse_no_rate()
        if self.namespace == BENCHMARK_NAMESPACE:
            raise ValidationError({"namespace": "This namespace belongs to the benchmark commands, which erase it."})

    def _refuse_no_rate(self) -> None:
        try:
            parse_rate(self.rate or "1/s")
        except ImproperlyConfigured as error:
            raise ValidationError({"rate": str(error)}) from None

    @property
    def may_act_for_users(self) -> bool:
        """Whether its tokens may name a user. A superuser holds every permission, and is no service: False."""
        account = self.user
        return account is not None and not account.is_superuser and account.has_perm(f"memory.{ACT_FOR_USERS}")


def is_persons(account: Any) -> bool:
    """Whether the account has been used as a person's, and so may have memories of its own."""
    return account.last_login is not None or AccessToken.objects.filter(user=account).exists()
