"""Index calls that were accepted and are done later, each sealed for its user and under row-level security."""

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
# What a worker needs to find work, and the rotation to count keys. No id, no place, no progress.
CENSUS_COLUMNS = {"memory_operations": "user_hash, enc_key_id, state, held_until, created_at, finished_at"}
# Seals do not compress.
LAYOUT = """
    ALTER TABLE memory_operations
        ALTER COLUMN payload_cipher SET STORAGE EXTERNAL,
        ALTER COLUMN result_cipher SET STORAGE EXTERNAL;
"""
UNFINISHED = models.Q(("state__in", ["pending", "running"]))


def at_least_28_bytes(column: str) -> models.Q:
    """Nonce and tag alone are 28 bytes: whatever is shorter is no seal."""
    length = models.Func(models.F(column), function="octet_length", output_field=models.IntegerField())
    return models.Q(django.db.models.lookups.GreaterThanOrEqual(length, 28))


class Migration(migrations.Migration):
    dependencies = [("memory", "0005_times")]

    operations = [
        migrations.CreateModel(
            name="MemoryOperation",
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
                ("number", models.BigIntegerField(editable=False)),
                (
                    "state",
                    models.TextField(
                        choices=[
                            ("pending", "Pending"),
                            ("running", "Running"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                        ],
                        db_default="pending",
                        default="pending",
                    ),
                ),
                ("payload_cipher", memory.sealing.fields.SealedJSONField(null=True, plain="payload")),
                ("result_cipher", memory.sealing.fields.SealedJSONField(null=True, plain="result")),
                ("enc_key_id", models.TextField(editable=False)),
                ("chunks_done", models.IntegerField(db_default=0, default=0)),
                ("chunks_total", models.IntegerField(null=True)),
                ("attempts", models.SmallIntegerField(db_default=0, default=0)),
                ("holder", models.TextField(db_default="", default="")),
                ("held_until", models.DateTimeField(null=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "memory_operations",
                "abstract": False,
                "base_manager_name": "objects",
                "constraints": [
                    models.UniqueConstraint(fields=("user_hash", "number"), name="memory_operations_number"),
                    models.CheckConstraint(
                        condition=models.Q(("user_hash__regex", "^[0-9a-f]{64}$")),
                        name="memory_operations_user_hash_hex",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("finished_at__isnull", True),
                                ("payload_cipher__isnull", False),
                                ("state__in", ["pending", "running"]),
                            ),
                            models.Q(
                                ("finished_at__isnull", False),
                                ("payload_cipher__isnull", True),
                                ("result_cipher__isnull", False),
                                ("state__in", ["succeeded", "failed"]),
                            ),
                            _connector="OR",
                        ),
                        name="memory_operations_state",
                    ),
                    models.CheckConstraint(
                        condition=at_least_28_bytes("payload_cipher"), name="memory_operations_payload_sealed"
                    ),
                    models.CheckConstraint(
                        condition=at_least_28_bytes("result_cipher"), name="memory_operations_result_sealed"
                    ),
                ],
                "indexes": [
                    models.Index(
                        condition=UNFINISHED, fields=["user_hash", "number"], name="memory_operations_unfinished"
                    ),
                    models.Index(
                        condition=models.Q(("finished_at__isnull", False)),
                        fields=["user_hash", "finished_at"],
                        name="memory_operations_finished",
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
