"""A service outlives its account, and stays: the next to use its namespace would inherit its users' memories."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("memory", "0001_initial"),
    ]

    operations = [
        migrations.AlterField(
            model_name="serviceaccount",
            name="user",
            field=models.OneToOneField(
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="service_account",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.RunSQL(
            "REVOKE DELETE ON memory_serviceaccount FROM memory_app",
            "GRANT DELETE ON memory_serviceaccount TO memory_app",
        ),
    ]
