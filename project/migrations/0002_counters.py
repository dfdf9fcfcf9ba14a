"""The shared cache holds numbers only: the column of pickled values goes."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("project", "0001_initial")]
    operations = [
        migrations.RunSQL(
            "DELETE FROM project_cache WHERE number IS NULL; ALTER TABLE project_cache DROP COLUMN value;",
            "ALTER TABLE project_cache ADD COLUMN value bytea;",
        ),
    ]
