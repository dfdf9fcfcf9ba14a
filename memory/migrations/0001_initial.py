"""The tables of the memory, row-level security on each tenant table, and the storage that retrieval counts on.

Everything is spelled out here and nothing is read from live code: what a migration did yesterday it does tomorrow. The
live text of the policies is in `memory.tenancy.policies`; a test compares the two as the database deparses them.
"""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.lookups
import pgvector.django.indexes
import pgvector.django.sparsevec
import pgvector.django.vector
from django.conf import settings
from django.db import migrations, models

import memory.sealing.fields

# Forwards a grant comes last, when policies stand and bind the owner too. Backwards it goes first. (The default
# privileges of `database.setup_sql` grant the application a table as it is made, hence the REVOKE before anything.)
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
# What the census may count by: hashes, key ids and dates.
CENSUS_COLUMNS = {
    "tenants": "user_hash, enc_key_id, hmac_key_id, chunk_count, created_at, recipe",
    "memory_chunks": "user_hash, enc_key_id, created_at, updated_at",
    "memory_vectors": "user_hash",
    "memory_terms": "user_hash",
}
# EXTERNAL: seals do not compress. PLAIN: a vector in TOAST costs a scan four times its time.
# A chunk's vector and postings go with it: Django has no composite foreign keys.
# memory_terms is many narrow rows that nothing looks up by their key: its index would be the largest of all.
LAYOUT = """
    ALTER TABLE tenants ALTER COLUMN user_cipher SET STORAGE EXTERNAL;
    ALTER TABLE memory_chunks
        ALTER COLUMN text_cipher SET STORAGE EXTERNAL,
        ALTER COLUMN meta_cipher SET STORAGE EXTERNAL,
        ALTER COLUMN emb_cipher SET STORAGE EXTERNAL;
    ALTER TABLE memory_vectors
        ALTER COLUMN embedding SET STORAGE PLAIN,
        ALTER COLUMN lexical SET STORAGE PLAIN,
        ADD CONSTRAINT memory_vectors_chunk FOREIGN KEY (user_hash, id)
            REFERENCES memory_chunks (user_hash, id) ON DELETE CASCADE;
    ALTER TABLE memory_terms
        DROP CONSTRAINT memory_terms_pkey,
        ADD CONSTRAINT memory_terms_chunk_exists FOREIGN KEY (user_hash, id)
            REFERENCES memory_chunks (user_hash, id) ON DELETE CASCADE;
"""
NO_LAYOUT = """
    ALTER TABLE memory_terms
        DROP CONSTRAINT memory_terms_chunk_exists,
        ADD CONSTRAINT memory_terms_pkey PRIMARY KEY (user_hash, term, id);
    ALTER TABLE memory_vectors
        DROP CONSTRAINT memory_vectors_chunk,
        ALTER COLUMN embedding SET STORAGE EXTERNAL,
        ALTER COLUMN lexical SET STORAGE EXTERNAL;
    ALTER TABLE memory_chunks
        ALTER COLUMN text_cipher SET STORAGE EXTENDED,
        ALTER COLUMN meta_cipher SET STORAGE EXTENDED,
        ALTER COLUMN emb_cipher SET STORAGE EXTENDED;
    ALTER TABLE tenants ALTER COLUMN user_cipher SET STORAGE EXTENDED;
"""


def at_least_28_bytes(column: str) -> models.Q:
    """Nonce and tag alone are 28 bytes: whatever is shorter is no seal."""
    length = models.Func(models.F(column), function="octet_length", output_field=models.IntegerField())
    return models.Q(django.db.models.lookups.GreaterThanOrEqual(length, 28))


def is_user_hash() -> models.Q:
    return models.Q(("user_hash__regex", "^[0-9a-f]{64}$"))


class Migration(migrations.Migration):
    initial = True
    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]
    operations = [
        migrations.CreateModel(
            name="Tenant",
            fields=[
                ("user_hash", models.TextField(editable=False, primary_key=True, serialize=False)),
                ("user_cipher", memory.sealing.fields.SealedTextField(plain="user_id")),
                ("enc_key_id", models.TextField(editable=False)),
                ("hmac_key_id", models.TextField(editable=False)),
                ("chunk_count", models.BigIntegerField(db_default=0, default=0)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("recipe", models.TextField(db_default="", default="", editable=False)),
            ],
            options={
                "db_table": "tenants",
                "abstract": False,
                "base_manager_name": "objects",
                "constraints": [
                    models.CheckConstraint(condition=is_user_hash(), name="tenants_user_hash_hex"),
                    models.CheckConstraint(condition=at_least_28_bytes("user_cipher"), name="tenants_user_sealed"),
                    models.CheckConstraint(condition=models.Q(("chunk_count__gte", 0)), name="tenants_chunk_count"),
                ],
            },
        ),
        migrations.CreateModel(
            name="MemoryChunk",
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
                ("doc_id", models.TextField()),
                ("source", models.TextField(blank=True, default="")),
                ("chunk_index", models.IntegerField()),
                ("text_cipher", memory.sealing.fields.SealedTextField(plain="text")),
                ("meta_cipher", memory.sealing.fields.SealedJSONField(plain="metadata")),
                ("emb_cipher", memory.sealing.fields.SealedVectorField(plain="embedding")),
                ("enc_key_id", models.TextField(editable=False)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "updated_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "db_table": "memory_chunks",
                "abstract": False,
                "base_manager_name": "objects",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("user_hash", "doc_id", "chunk_index"), name="memory_chunks_document"
                    ),
                    models.CheckConstraint(condition=is_user_hash(), name="memory_chunks_user_hash_hex"),
                    models.CheckConstraint(
                        condition=models.Q(("chunk_index__gte", 0)), name="memory_chunks_chunk_index"
                    ),
                    models.CheckConstraint(
                        condition=at_least_28_bytes("text_cipher"), name="memory_chunks_text_sealed"
                    ),
                    models.CheckConstraint(
                        condition=at_least_28_bytes("meta_cipher"), name="memory_chunks_meta_sealed"
                    ),
                    models.CheckConstraint(condition=at_least_28_bytes("emb_cipher"), name="memory_chunks_emb_sealed"),
                ],
            },
        ),
        migrations.CreateModel(
            name="MemoryVector",
            fields=[
                ("user_hash", models.TextField(editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "user_hash", "id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("id", models.UUIDField(editable=False)),
                # The one thing that is read: the dimension is chosen at set-up, and `check` refuses another later.
                ("embedding", pgvector.django.vector.VectorField(dimensions=settings.MEMORY_EMBEDDING_DIM)),
                ("lexical", pgvector.django.sparsevec.SparseVectorField(dimensions=1000000000, null=True)),
                ("chunk_index", models.IntegerField(default=0)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("doc_id", models.TextField(default="")),
                (
                    "labels",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.BigIntegerField(), default=list, size=None
                    ),
                ),
                ("source", models.TextField(blank=True, default="")),
                ("outgrown", models.BooleanField(db_default=False, default=False)),
            ],
            options={
                "db_table": "memory_vectors",
                "abstract": False,
                "base_manager_name": "objects",
                "constraints": [models.CheckConstraint(condition=is_user_hash(), name="memory_vectors_user_hash_hex")],
                "indexes": [
                    pgvector.django.indexes.HnswIndex(
                        condition=models.Q(("outgrown", True)),
                        ef_construction=64,
                        fields=["embedding"],
                        m=16,
                        name="memory_vectors_graph",
                        opclasses=["vector_ip_ops"],
                    ),
                    models.Index(
                        condition=models.Q(("outgrown", False)), fields=["user_hash"], name="memory_vectors_tail"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="MemoryTerm",
            fields=[
                ("user_hash", models.TextField(editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "user_hash", "term", "id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("term", models.IntegerField()),
                ("id", models.UUIDField(editable=False)),
                ("weight", models.FloatField()),
            ],
            options={
                "db_table": "memory_terms",
                "abstract": False,
                "base_manager_name": "objects",
                "constraints": [models.CheckConstraint(condition=is_user_hash(), name="memory_terms_user_hash_hex")],
                "indexes": [
                    models.Index(fields=["user_hash", "term"], name="memory_terms_term"),
                    models.Index(fields=["user_hash", "term", "weight", "id"], name="memory_terms_best"),
                    models.Index(fields=["user_hash", "id"], name="memory_terms_chunk"),
                ],
            },
        ),
        migrations.RunSQL(LAYOUT, NO_LAYOUT),
        *(
            migrations.RunSQL(
                ROW_LEVEL_SECURITY.format(table=table, census_columns=columns),
                NO_ROW_LEVEL_SECURITY.format(table=table),
            )
            for table, columns in CENSUS_COLUMNS.items()
        ),
        migrations.CreateModel(
            name="ServiceAccount",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "namespace",
                    models.SlugField(
                        help_text="First part of its users' ids; fixed once used.", max_length=64, unique=True
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="service_account",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ("namespace",),
                "permissions": [("act_for_users", "Can act for the users in its service's namespace")],
            },
        ),
        migrations.CreateModel(
            name="AccessToken",
            fields=[
                ("token_key", models.CharField(db_index=True, max_length=25)),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("expiry", models.DateTimeField(blank=True, null=True)),
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("digest", models.CharField(editable=False, max_length=128, unique=True)),
                ("label", models.CharField(blank=True, help_text="What this token is for.", max_length=100)),
                ("last_used_at", models.DateTimeField(editable=False, null=True)),
                ("revoked_at", models.DateTimeField(editable=False, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="auth_token_set",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={"ordering": ("-created",)},
        ),
    ]
