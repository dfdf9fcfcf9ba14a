"""The index by time, over a CASE: under row-level security Postgres takes no condition on a COALESCE into an index.

Writes to `memory_vectors` wait while it is built anew: 20 seconds per million rows.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("memory", "0008_requests")]

    operations = [
        migrations.RemoveIndex("memoryvector", "memory_vectors_time"),
        migrations.AddIndex(
            "memoryvector",
            models.Index(
                models.F("user_hash"),
                models.Case(
                    models.When(occurred_at__isnull=True, then=models.F("created_at")), default=models.F("occurred_at")
                ),
                models.F("id"),
                name="memory_vectors_time",
            ),
        ),
    ]
