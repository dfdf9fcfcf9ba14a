"""Indexes by the time that memories are about, and by that after which they are gone; the census may read the latter.

Both are built while writers wait. The first reads every row of `memory_vectors`: 20 seconds per million rows. The second
holds no row that never expires: a second per million.
"""

import django.db.models.functions.comparison
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("memory", "0004_context")]

    operations = [
        migrations.AddIndex(
            "memoryvector",
            models.Index(
                models.F("user_hash"),
                django.db.models.functions.comparison.Coalesce("occurred_at", "created_at"),
                models.F("id"),
                name="memory_vectors_time",
            ),
        ),
        migrations.AddIndex(
            "memorychunk",
            models.Index(
                condition=models.Q(("expires_at__isnull", False)),
                fields=["user_hash", "expires_at"],
                name="memory_chunks_expiry",
            ),
        ),
        migrations.RunSQL(
            "GRANT SELECT (expires_at) ON memory_chunks TO memory_census",
            "REVOKE SELECT (expires_at) ON memory_chunks FROM memory_census",
        ),
    ]
