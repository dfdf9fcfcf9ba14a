"""Whether any row of a tenant may expire. True of those that are there already, which costs their searches nothing new,
and of those that a process of the version before still makes."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("memory", "0009_time_as_a_case")]

    operations = [
        migrations.AddField("tenant", "expiring", models.BooleanField(db_default=True, default=True, editable=False)),
    ]
