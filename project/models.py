"""`HourlyCount`: what happened in each hour, in numbers alone."""

from django.db import models


class HourlyCount(models.Model):
    """A number of one hour (UTC): a sum of what all processes counted in it, or the last sample of a level.

    `name` comes from a fixed list (`project.dashboard`): never a tenant, a user or a text.
    """

    pk = models.CompositePrimaryKey("name", "hour")
    name = models.TextField()
    hour = models.DateTimeField(db_index=True)
    value = models.FloatField()

    def __str__(self) -> str:
        return f"{self.name} at {self.hour:%Y-%m-%d %H}"
