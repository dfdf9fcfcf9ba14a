"""An index of the sources of outgrown tenants' rows: a query that is narrowed to a rare one need not scan all rows.

Writes to `memory_vectors` wait while it is built: 10 seconds per million rows of outgrown tenants.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("memory", "0006_operations")]

    operations = [
        migrations.AddIndex(
            "memoryvector",
            models.Index(
                condition=models.Q(("outgrown", True)), fields=["user_hash", "source", "id"], name="memory_vectors_source"
            ),
        ),
    ]
