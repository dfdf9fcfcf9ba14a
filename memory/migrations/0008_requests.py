"""Requests with an Idempotency-Key and their answers, each sealed for its user and under row-level security."""

import django.db.models.functions.datetime
import django.db.models.lookups
from django.db import migrations, models

import memory.sealing.fields

# As in 0001: nothing is granted before the policies stand and bind the owner too.
ROW_LEVEL_SECURITY = """
    REVOKE ALL ON {table} FROM memory_app, memory_census;
    ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
    ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
    CREATE POLICY tenant_isolation ON {table} TO memory_app
        USING (user_hash = nullif(current_setting('app.user_hash', true), ''))
        WITH CHECK (user_hash = nullif(current_setting('app.user_hash', true), ''));
    CREATE POLICY census ON {table} FOR SELECT TO memory_census USING (true);
    GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO memory_app;
    GRANT SELECT ({census_columns}) ON {table} TO memory_census;
"""
NO_ROW_LEVEL_SECURITY = """
    REVOKE ALL ON {table} FROM memory_app, memory_census;
    DROP POLICY census ON {table};
    DROP POLICY tenant_isolation ON {table};
    ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;
    ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;
"""
# What the purge needs to find old ones, and the rotation to count keys.
CENSUS_COLUMNS = {"memory_requests": "user_hash, enc_key_id, created_at"}
# Seals do not compress.
LAYOUT = "ALTER TABLE memory_requests ALTER COLUMN record_cipher SET STORAGE EXTERNAL"


def at_least_28_bytes(column: str) -> models.Q:
    """Nonce and tag alone are 28 bytes: whatever is shorter is no seal."""
    length = models.Func(models.F(column), function="octet_length", output_field=models.IntegerField())
    return models.Q(django.db.models.lookups.GreaterThanOrEqual(length, 28))


class Migration(migrations.Migration):
    dependencies = [("memory", "0007_sources")]

    operations = [
        migrations.CreateModel(
            name="MemoryRequest",
            fields=[
                ("user_hash", models.TextField(editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "user_hash", "id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "id",
                    models.UUIDField(
                        db_default=models.Func(function="uuidv7", output_field=models.UUIDField()), editable=False
                    ),
                ),
                ("key_hash", models.TextField(editable=False)),
                ("record_cipher", memory.sealing.fields.SealedJSONField(plain="record")),
                ("enc_key_id", models.TextField(editable=False)),
                ("held_until", models.DateTimeField(null=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "db_table": "memory_requests",
                "abstract": False,
                "base_manager_name": "objects",
                "constraints": [
                    models.UniqueConstraint(fields=("user_hash", "key_hash"), name="memory_requests_key"),
                    models.CheckConstraint(
                        condition=models.Q(("user_hash__regex", "^[0-9a-f]{64}$")), name="memory_requests_user_hash_hex"
                    ),
                    models.CheckConstraint(
                        condition=at_least_28_bytes("record_cipher"), name="memory_requests_record_sealed"
                    ),
                ],
            },
        ),
        migrations.RunSQL(LAYOUT, migrations.RunSQL.noop),
        *(
            migrations.RunSQL(
                ROW_LEVEL_SECURITY.format(table=table, census_columns=columns),
                NO_ROW_LEVEL_SECURITY.format(table=table),
            )
            for table, columns in CENSUS_COLUMNS.items()
        ),
    ]
