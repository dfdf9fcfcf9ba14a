"""The memory's rows. Every key starts with `user_hash`, every table is under row-level security."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Func, Q, lookups
from django.db.models.functions import Now
from pgvector.django import HnswIndex, SparseVectorField, VectorField

from memory.access.tokens import AccessToken, ServiceAccount
from memory.index.bm25 import DIMENSIONS as SPARSE_DIMENSIONS
from memory.sealing.fields import SealedJSONField, SealedTextField, SealedVectorField
from memory.security import OVERHEAD
from memory.tenancy.tenant_model import TenantModel

__all__ = ["AccessToken", "MemoryChunk", "MemoryVector", "ServiceAccount", "Tenant", "TenantModel"]

USER_HASH_REGEX = "^[0-9a-f]{64}$"
# Postgres 18's time-ordered uuidv7(): ids sort by creation, so pages and indexes do too. No class of our own, which
# the migration would import.
UUID_V7 = Func(function="uuidv7", output_field=models.UUIDField())


def is_sealed(column: str) -> Q:
    """A condition that refuses whatever is too short to be a seal."""
    length = Func(F(column), function="octet_length", output_field=models.IntegerField())
    return Q(lookups.GreaterThanOrEqual(length, OVERHEAD))


class Tenant(TenantModel):
    """One user of the memory. Writers of one user's rows serialise on this row."""

    user_hash = models.TextField(primary_key=True, editable=False)
    user_cipher = SealedTextField(plain="user_id")
    enc_key_id = models.TextField(editable=False)
    hmac_key_id = models.TextField(editable=False)
    chunk_count = models.BigIntegerField(default=0, db_default=0)
    recipe = models.TextField(default="", db_default="", editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantModel.Meta):
        db_table = "tenants"
        constraints = [
            models.CheckConstraint(condition=Q(user_hash__regex=USER_HASH_REGEX), name="tenants_user_hash_hex"),
            models.CheckConstraint(condition=is_sealed("user_cipher"), name="tenants_user_sealed"),
            models.CheckConstraint(condition=Q(chunk_count__gte=0), name="tenants_chunk_count"),
        ]

    def __str__(self) -> str:
        return f"tenant {self.user_hash[:8]}"


class MemoryChunk(TenantModel):
    """A piece of a document: what it says is sealed, where it came from is not."""

    pk = models.CompositePrimaryKey("user_hash", "id")
    id = models.UUIDField(db_default=UUID_V7, editable=False)
    doc_id = models.TextField()
    source = models.TextField(default="", blank=True)
    chunk_index = models.IntegerField()
    text_cipher = SealedTextField(plain="text")
    meta_cipher = SealedJSONField(plain="metadata")
    emb_cipher = SealedVectorField(plain="embedding")
    enc_key_id = models.TextField(editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantModel.Meta):
        db_table = "memory_chunks"
        constraints = [
            models.UniqueConstraint(fields=["user_hash", "doc_id", "chunk_index"], name="memory_chunks_document"),
            models.CheckConstraint(condition=Q(user_hash__regex=USER_HASH_REGEX), name="memory_chunks_user_hash_hex"),
            models.CheckConstraint(condition=Q(chunk_index__gte=0), name="memory_chunks_chunk_index"),
            models.CheckConstraint(condition=is_sealed("text_cipher"), name="memory_chunks_text_sealed"),
            models.CheckConstraint(condition=is_sealed("meta_cipher"), name="memory_chunks_meta_sealed"),
            models.CheckConstraint(condition=is_sealed("emb_cipher"), name="memory_chunks_emb_sealed"),
        ]

    def __str__(self) -> str:
        return f"chunk {self.id} of tenant {self.user_hash[:8]}"


class MemoryVector(TenantModel):
    """What a chunk is found by. A table of its own, so that re-sealing a chunk never touches a vector index.

    It repeats what a search filters and groups by, so that a scan reads one table.
    """

    pk = models.CompositePrimaryKey("user_hash", "id")
    id = models.UUIDField(editable=False)
    embedding = VectorField(dimensions=settings.MEMORY_EMBEDDING_DIM)
    lexical = SparseVectorField(dimensions=SPARSE_DIMENSIONS, null=True)
    doc_id = models.TextField(default="")
    source = models.TextField(default="", blank=True)
    chunk_index = models.IntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    labels = ArrayField(models.BigIntegerField(), default=list)
    outgrown = models.BooleanField(default=False, db_default=False)

    class Meta(TenantModel.Meta):
        db_table = "memory_vectors"
        constraints = [
            models.CheckConstraint(condition=Q(user_hash__regex=USER_HASH_REGEX), name="memory_vectors_user_hash_hex"),
        ]
        indexes = [
            # Tenants that are scanned exactly stay out of the graph: it would only slow their writes.
            HnswIndex(
                fields=["embedding"],
                name="memory_vectors_graph",
                opclasses=["vector_ip_ops"],
                m=16,
                ef_construction=64,
                condition=Q(outgrown=True),
            ),
            models.Index(fields=["user_hash"], name="memory_vectors_tail", condition=Q(outgrown=False)),
        ]

    def __str__(self) -> str:
        return f"vector {self.id} of tenant {self.user_hash[:8]}"


class MemoryTerm(TenantModel):
    """A posting: an outgrown chunk holds a nameless term with this BM25 weight. HNSW recalls sparse vectors badly, and
    row-level security keeps a GIN index from being used, so these stand in a table under btrees."""

    pk = models.CompositePrimaryKey("user_hash", "term", "id")
    term = models.IntegerField()
    id = models.UUIDField(editable=False)
    weight = models.FloatField()

    class Meta(TenantModel.Meta):
        db_table = "memory_terms"
        constraints = [
            models.CheckConstraint(condition=Q(user_hash__regex=USER_HASH_REGEX), name="memory_terms_user_hash_hex"),
        ]
        indexes = [
            # Narrow, for counting; and one that holds every column, by weight: a term's best postings lie together.
            models.Index(fields=["user_hash", "term"], name="memory_terms_term"),
            models.Index(fields=["user_hash", "term", "weight", "id"], name="memory_terms_best"),
            models.Index(fields=["user_hash", "id"], name="memory_terms_chunk"),
        ]

    def __str__(self) -> str:
        return f"a term of chunk {self.id} of tenant {self.user_hash[:8]}"
