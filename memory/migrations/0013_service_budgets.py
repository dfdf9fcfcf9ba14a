"""A budget of a service's own. Reads the few rows of services once, for a constraint."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("memory", "0011_row_macs")]

    operations = [
        migrations.AddField(
            model_name="serviceaccount",
            name="rate",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text=(
                    "Calls of all its tokens together, such as 20000/min. Empty: MEMORY_THROTTLE_TOKEN for each token."
                ),
                max_length=20,
                verbose_name="budget",
            ),
        ),
        migrations.AddConstraint(
            model_name="serviceaccount",
            constraint=models.CheckConstraint(
                condition=models.Q(("rate__regex", "^([1-9][0-9]*/(s|min|h|d))?$")), name="memory_serviceaccount_rate"
            ),
        ),
    ]
