"""Querysets of tenant rows, which work only inside `tenant_transaction()` or where a user is bound."""

from typing import Any, NoReturn, TypeVar

from django.db import models

from memory.tenancy.open_doors import new_rows_hash, reachable_hashes

M = TypeVar("M", bound=models.Model)


class TenantQuerySet(models.QuerySet[M]):
    """Raises OutsideTenantTransaction before it reaches the database without a user, whichever ORM method is called."""

    @property
    def db(self) -> str:
        alias = super().db
        reachable_hashes(alias)
        return alias

    def raw(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("raw() has no tenant filter and fails on composite keys: use a cursor in the door.")

    def create(self, **kwargs: Any) -> M:
        """Create a row of the user whose rows can be reached now; its sealed fields are bound to that user too."""
        return super().create(**{"user_hash": new_rows_hash(self.db), **kwargs})


class TenantManager(models.Manager.from_queryset(TenantQuerySet)):  # type: ignore[misc]
    """Filters every queryset by `user_hash = <constant>`, in addition to the policy.

    The constant allows an index condition, partition pruning and Citus routing. It also protects an open cursor when
    the setting changes. A queryset built in one tenant's door finds nothing in another's.
    """

    use_in_migrations = False

    def get_queryset(self) -> TenantQuerySet[Any]:
        queryset: TenantQuerySet[Any] = super().get_queryset()
        hashes = reachable_hashes(queryset.db)
        return queryset.filter(user_hash=hashes[0]) if len(hashes) == 1 else queryset.filter(user_hash__in=hashes)
