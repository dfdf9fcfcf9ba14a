"""The table of the shared cache (`project.cache`). Unlogged: a crash may empty a cache."""

from django.db import migrations


class Migration(migrations.Migration):
    # Its name before the first release.
    replaces = [("project", "0001_cache")]
    initial = True
    dependencies = []
    operations = [
        migrations.RunSQL(
            """
            CREATE UNLOGGED TABLE project_cache (
                key text PRIMARY KEY,
                number bigint,
                value bytea,
                expires_at timestamptz
            ) WITH (fillfactor = 70);
            CREATE INDEX project_cache_expires_at ON project_cache (expires_at);
            """,
            "DROP TABLE project_cache;",
        ),
    ]
