"""Row-level security on every tenant table, and the column storage that retrieval counts on."""

from django.db import migrations

from memory.tenancy.policies import EnableTenantRLS, ReferenceChunk, SetStorage


class Migration(migrations.Migration):
    dependencies = [("memory", "0001_initial")]

    operations = [
        EnableTenantRLS("Tenant", ["user_hash", "enc_key_id", "hmac_key_id", "chunk_count", "created_at"]),
        EnableTenantRLS("MemoryChunk", ["user_hash", "enc_key_id", "created_at", "updated_at"]),
        EnableTenantRLS("MemoryVector", ["user_hash"]),
        ReferenceChunk("MemoryVector", "memory_vectors_chunk"),
        SetStorage("Tenant", {"user_cipher": "EXTERNAL"}),
        SetStorage("MemoryChunk", {"text_cipher": "EXTERNAL", "meta_cipher": "EXTERNAL", "emb_cipher": "EXTERNAL"}),
        SetStorage("MemoryVector", {"embedding": "PLAIN", "lexical": "PLAIN"}, default="EXTERNAL"),
    ]
