"""Base of every model whose rows belong to one user."""

from collections.abc import Iterable
from typing import Any, ClassVar

from django.db import models

from memory.exceptions import SecondTenant
from memory.sealing.fields import sealed_fields
from memory.tenancy.managers import TenantManager
from memory.tenancy.open_doors import reachable_hashes


class TenantModel(models.Model):
    """A row that belongs to one user, and is written and read inside that user's door or while that user is bound."""

    user_hash = models.TextField(editable=False)

    objects: ClassVar[TenantManager] = TenantManager()

    class Meta:
        abstract = True
        base_manager_name = "objects"

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        """Save; a partial save of one sealed column takes its siblings and the key id along, or one row would end up
        under two keys."""
        super().save(*args, update_fields=self._with_siblings(update_fields), **kwargs)

    def save_base(self, *args: Any, **kwargs: Any) -> None:
        self.require_reachable(kwargs.get("using"))
        super().save_base(*args, **kwargs)

    def delete(self, using: Any = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        self.require_reachable(using)
        return super().delete(using=using, keep_parents=keep_parents)

    def _with_siblings(self, update_fields: Iterable[str] | None) -> Iterable[str] | None:
        sealed = {field.name for field in sealed_fields(type(self))}
        if update_fields is None or not sealed.intersection(named := set(update_fields)):
            return update_fields
        return named | sealed | {"enc_key_id"}

    def require_reachable(self, using: str | None) -> None:
        """Raise SecondTenant unless the row belongs to the user whose rows can be reached now."""
        if self.user_hash not in reachable_hashes(using or self._state.db or "default"):
            raise SecondTenant("The row belongs to another user than the open tenant_transaction() or the bound one.")
