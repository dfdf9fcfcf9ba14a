"""What surrounds a memory: a sealed title and author, the time that it is about, and the time after which it is gone.

Three columns without a default and a constraint that their NULLs meet: no table is rewritten. `memory_chunks` is read
once for the constraint, well under a second per million rows, while writers wait.
"""

import django.db.models.lookups
from django.db import migrations, models

import memory.sealing.fields


class Migration(migrations.Migration):
    dependencies = [("memory", "0003_recipe_of_rows")]

    operations = [
        migrations.AddField("memorychunk", "context_cipher", memory.sealing.fields.SealedContextField(null=True, plain="context")),
        migrations.AddField("memorychunk", "occurred_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField("memorychunk", "expires_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField("memoryvector", "occurred_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField("memoryvector", "expires_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddConstraint(
            "memorychunk",
            models.CheckConstraint(
                condition=models.Q(
                    django.db.models.lookups.GreaterThanOrEqual(
                        models.Func(models.F("context_cipher"), function="octet_length", output_field=models.IntegerField()),
                        28,
                    )
                ),
                name="memory_chunks_context_sealed",
            ),
        ),
        # EXTERNAL, like the other seals: they do not compress.
        migrations.RunSQL(
            "ALTER TABLE memory_chunks ALTER COLUMN context_cipher SET STORAGE EXTERNAL",
            "ALTER TABLE memory_chunks ALTER COLUMN context_cipher SET STORAGE EXTENDED",
        ),
    ]
