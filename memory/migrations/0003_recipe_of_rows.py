"""A row of the index tells by which recipe it was made, so that a reindex goes on where it was stopped."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("memory", "0002_services_stay")]

    operations = [
        migrations.AddField(
            model_name="memoryvector",
            name="recipe_id",
            field=models.BigIntegerField(db_default=0, default=0, editable=False),
        ),
    ]
