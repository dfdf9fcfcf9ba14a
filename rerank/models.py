"""The operators' switch, as the list of its movements: who, when and why cannot be lost."""

from typing import Any

from django.conf import settings
from django.db import models


class SwitchChange(models.Model):
    """One movement of the switch. The newest row is its position; rows are only ever added."""

    enabled = models.BooleanField(help_text="Whether answers are reranked from now on.")
    note = models.CharField(max_length=200, blank=True, help_text="Why. Shown in the history.")
    changed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    changed_by_name = models.CharField(max_length=150, editable=False)
    changed_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ("-changed_at", "-pk")
        verbose_name = "rerank switch change"

    def __str__(self) -> str:
        return f"{'on' if self.enabled else 'off'} by {self.changed_by_name}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("A movement of the switch is history: add another one instead.")
        super().save(*args, **kwargs)
