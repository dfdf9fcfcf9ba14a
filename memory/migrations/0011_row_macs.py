"""MACs of rows, and the digest of a tenant's set of rows. Null in what is there already, until `complete_row_macs` has run.

PLAIN: they do not compress, and one in TOAST would cost every read another one.
"""

from django.db import migrations, models

LAYOUT = """
    ALTER TABLE memory_chunks ALTER COLUMN chunk_mac SET STORAGE PLAIN;
    ALTER TABLE memory_vectors ALTER COLUMN vector_mac SET STORAGE PLAIN;
    ALTER TABLE tenants ALTER COLUMN row_set SET STORAGE PLAIN;
    GRANT SELECT (row_set) ON tenants TO memory_census;
"""
NO_LAYOUT = """
    REVOKE SELECT (row_set) ON tenants FROM memory_census;
"""


class Migration(migrations.Migration):
    dependencies = [("memory", "0010_expiring")]

    operations = [
        migrations.AddField("memorychunk", "chunk_mac", models.BinaryField(editable=False, null=True)),
        migrations.AddField("memoryvector", "vector_mac", models.BinaryField(editable=False, null=True)),
        migrations.AddField("tenant", "row_set", models.BinaryField(editable=False, null=True)),
        migrations.RunSQL(LAYOUT, NO_LAYOUT),
    ]
