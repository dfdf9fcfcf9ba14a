"""The memory's rows. Every key starts with `user_hash`, every table is under row-level security."""

from collections.abc import Collection, Iterable
from contextlib import nullcontext
from datetime import datetime
from typing import Any, ClassVar, Self
from uuid import UUID

import numpy as np
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import NotSupportedError, models
from django.db.models import F, Func, Q, lookups
from django.db.models.functions import Now
from pgvector.django import HnswIndex, SparseVectorField, VectorField

from memory.access.tokens import AccessToken, ServiceAccount
from memory.index.bm25 import DIMENSIONS as SPARSE_DIMENSIONS
from memory.index.context import NO_CONTEXT, context_of, local_time, refuse_invalid_time
from memory.index.name_field import NameField, as_given, names_as_stored
from memory.index.names import SEALED, with_names
from memory.index.recipe import Recipe
from memory.index.rows import PlainChunk, refuse_invalid_chunk
from memory.index.saved_chunks import REPEATED, Writing, embed_missing, writing
from memory.index.stored_macs import COVERED, READ, AsRead
from memory.sealing.codecs import Context
from memory.sealing.fields import (
    SealedContextField,
    SealedJSONField,
    SealedTextField,
    SealedVectorField,
    assigned_plain,
    sealed_fields,
)
from memory.security import OVERHEAD
from memory.tenancy.managers import TenantManager, TenantQuerySet
from memory.tenancy.open_doors import reachable_hashes
from memory.tenancy.tenant_model import TenantModel

__all__ = [
    "AccessToken",
    "MemoryChunk",
    "MemoryOperation",
    "MemoryVector",
    "ServiceAccount",
    "Tenant",
    "TenantModel",
]

USER_HASH_REGEX = "^[0-9a-f]{64}$"
# Postgres 18's time-ordered uuidv7(): ids sort by creation, so pages and indexes do too. No class of our own, which
# the migration would import.
UUID_V7 = Func(function="uuidv7", output_field=models.UUIDField())


def is_sealed(column: str) -> Q:
    """A condition that refuses whatever is too short to be a seal."""
    length = Func(F(column), function="octet_length", output_field=models.IntegerField())
    return Q(lookups.GreaterThanOrEqual(length, OVERHEAD))


def unexpired() -> Q:
    """A condition that leaves out what has expired, which is as good as deleted."""
    return Q(expires_at__isnull=True) | Q(expires_at__gt=Now())


def happened_at() -> models.Case:
    """The time that a row is about; that of its creation, where none was told.

    Not COALESCE: under row-level security Postgres takes no condition on one into an index.
    """
    return models.Case(models.When(occurred_at__isnull=True, then=F("created_at")), default=F("occurred_at"))


class Tenant(TenantModel):
    """One user of the memory. Writers of one user's rows serialise on this row."""

    user_hash = models.TextField(primary_key=True, editable=False)
    user_cipher = SealedTextField(plain="user_id")
    enc_key_id = models.TextField(editable=False)
    hmac_key_id = models.TextField(editable=False)
    chunk_count = models.BigIntegerField(default=0, db_default=0)
    recipe = models.TextField(default="", db_default="", editable=False)
    # Whether any row may have an `expires_at`: a scan of the others need not read that column. True unless it is known
    # to be false, which costs time and never an answer.
    expiring = models.BooleanField(default=True, db_default=True, editable=False)
    # The digest of the set of the tenant's rows (memory.tenancy.row_set); null: from before there was one.
    row_set = models.BinaryField(null=True, editable=False)
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


class MemoryChunkQuerySet(TenantQuerySet["MemoryChunk"]):
    """Chunks that stay findable: what is written here is written to the index in the same transaction."""

    def bulk_create(self, objs: Iterable["MemoryChunk"], *args: Any, **options: Any) -> list["MemoryChunk"]:
        """Store new chunks as the API does; conflicts cannot be ignored or turned into updates."""
        if any(options.get(name) for name in ("ignore_conflicts", "update_conflicts")):
            raise NotSupportedError("Chunks are created, or saved one by one: the index cannot follow a conflict.")
        chunks = list(objs)
        reachable_hashes(self.db)
        for chunk in chunks:
            chunk.prepare()
        embed_missing(chunks)
        if chunks:
            with writing(self.db) as write:
                for chunk in chunks:
                    chunk.require_reachable(self.db)
                    chunk.take_form(write.recipe)
                write.give_places(chunks)
                write.insert(chunks)
        for chunk in chunks:
            chunk.stored(self.db)
        return chunks

    def update(self, **values: Any) -> int:
        """Update; what the index repeats of a chunk is updated there too. Seals that are set here as they are (not by a
        chunk's `text`, `metadata` or `embedding`) leave the index as it was."""
        if "occurred_at" in values:
            raise NotSupportedError("Save the chunks one by one: what they are found by tells their time.")
        repeated = {name: value for name, value in values.items() if name in REPEATED}
        with writing(self.db, create=False) as write:
            if {"doc_id", "source"} & values.keys() and write.recipe.names == SEALED:
                raise NotSupportedError("Save the chunks one by one: what is sealed of them holds their names.")
            if repeated.get("expires_at") is not None:  # an expression may come to nothing; that costs time alone
                write.mark_expiring()
            ids = list(self.order_by().values_list("id", flat=True))
            write.changing(ids)
            changed = super().update(**values)
            if repeated:
                MemoryVector.objects.filter(id__in=ids).update(**repeated)
            write.changed(ids)
        return changed

    update.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete chunks with all that they are found by."""
        with writing(self.db, create=False) as write:
            write.deleting(list(self.order_by().values_list("id", flat=True)))
            deleted, by_model = super().delete()
        return deleted, by_model

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def unexpired(self) -> Self:
        """Those that may be read; the others wait for `purge_expired`."""
        return self.filter(unexpired())


class MemoryChunkManager(TenantManager.from_queryset(MemoryChunkQuerySet)):  # type: ignore[misc]
    """Chunks of the user whose rows can be reached."""


class MemoryChunk(TenantModel):
    """A piece of a document: what it says is sealed, and where it came from is a label or readable.

    A saved chunk is a found chunk: `create()`, `save()`, `bulk_create()` and `delete()` keep its vector, its keywords,
    its labels and the tenant's count in step, in the same transaction. Without a `chunk_index` it takes the next one of
    its document; a new `text`, `title`, `author` or `occurred_at` without an `embedding` of its own is embedded.
    """

    # The plain sides of the sealed columns.
    text: str
    metadata: dict[str, Any]
    embedding: np.ndarray
    context: Context | None
    # The time as the index tells it, to notice another one.
    _stored_time: datetime | None = None
    _as_read: AsRead | None = None
    has_mac: ClassVar = True

    pk = models.CompositePrimaryKey("user_hash", "id")
    id = models.UUIDField(db_default=UUID_V7, editable=False)
    doc_id = NameField()
    source = NameField(default="", blank=True)
    chunk_index = models.IntegerField()
    text_cipher = SealedTextField(plain="text")
    meta_cipher = SealedJSONField(plain="metadata")
    emb_cipher = SealedVectorField(plain="embedding")
    context_cipher = SealedContextField(plain="context", null=True)
    enc_key_id = models.TextField(editable=False)
    # By which a row that was edited is refused (memory.sealing.row_macs); null: from before rows had MACs.
    chunk_mac = models.BinaryField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    occurred_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[MemoryChunkManager] = MemoryChunkManager()

    class Meta(TenantModel.Meta):
        db_table = "memory_chunks"
        constraints = [
            models.UniqueConstraint(fields=["user_hash", "doc_id", "chunk_index"], name="memory_chunks_document"),
            models.CheckConstraint(condition=Q(user_hash__regex=USER_HASH_REGEX), name="memory_chunks_user_hash_hex"),
            models.CheckConstraint(condition=Q(chunk_index__gte=0), name="memory_chunks_chunk_index"),
            models.CheckConstraint(condition=is_sealed("text_cipher"), name="memory_chunks_text_sealed"),
            models.CheckConstraint(condition=is_sealed("meta_cipher"), name="memory_chunks_meta_sealed"),
            models.CheckConstraint(condition=is_sealed("emb_cipher"), name="memory_chunks_emb_sealed"),
            models.CheckConstraint(condition=is_sealed("context_cipher"), name="memory_chunks_context_sealed"),
        ]
        indexes = [
            models.Index(
                fields=["user_hash", "expires_at"], name="memory_chunks_expiry", condition=Q(expires_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"chunk {self.id} of tenant {self.user_hash[:8]}"

    def save(self, *args: Any, using: str | None = None, **kwargs: Any) -> None:
        """Save, and keep the index in step. Raises InvalidDocument naming the field, EmbeddingModelUnavailable."""
        self.require_reachable(using)
        self.prepare()
        embed_missing([self])
        with writing(using or self._state.db) as write:
            known = self._id()
            is_new = not (known and write.changing([known]))
            self.take_form(write.recipe)
            if is_new:
                write.give_places([self])
            super().save(*args, using=using, **kwargs)
            self._index(write, kwargs.get("update_fields"))
            write.changed([self.id])
            write.added(int(is_new))
        self.stored(self._state.db)

    def save_base(self, *args: Any, **kwargs: Any) -> None:
        """A raw save, of `loaddata` or a copy, stores columns as they are and opens nothing."""
        with names_as_stored() if kwargs.get("raw") else nullcontext():
            super().save_base(*args, **kwargs)

    def delete(self, using: Any = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Delete the chunk with all that it is found by."""
        self.require_reachable(using)
        with writing(using or self._state.db, create=False) as write:
            write.deleting([self.id])
            deleted, by_model = super().delete(using=using, keep_parents=keep_parents)
        return deleted, by_model

    @property
    def lacks_embedding(self) -> bool:
        """Whether what is embedded of it is new, and nobody gave an embedding for it."""
        assigned = assigned_plain(self)
        changed = bool(assigned & {"text", "context"}) or self._time_changed
        return self.emb_cipher is None or (changed and "embedding" not in assigned)

    @property
    def title(self) -> str:
        """The title of its document; empty without one."""
        return (self.context or NO_CONTEXT).title

    @title.setter
    def title(self, value: str) -> None:
        self._set_context((self.context or NO_CONTEXT)._replace(title=value))

    @property
    def author(self) -> str:
        """Who said or wrote it; empty when nobody is named."""
        return (self.context or NO_CONTEXT).author

    @author.setter
    def author(self, value: str) -> None:
        self._set_context((self.context or NO_CONTEXT)._replace(author=value))

    def _set_context(self, context: Context) -> None:
        self.context = None if context == NO_CONTEXT else context

    @classmethod
    def from_db(
        cls, db: str | None, field_names: Collection[str], values: Collection[Any], **options: Any
    ) -> "MemoryChunk":
        chunk: MemoryChunk = super().from_db(db, field_names, values, **options)
        chunk._stored_time = chunk.__dict__.get("occurred_at")
        chunk._as_read = AsRead(**{name: chunk.__dict__[name] for name in READ if name in chunk.__dict__})
        return chunk

    @property
    def _time_changed(self) -> bool:
        return "occurred_at" in self.__dict__ and self.occurred_at != self._stored_time

    def plain(self) -> PlainChunk:
        """What it says, opened, as everything that makes it findable takes it."""
        opened = self.context  # once: whatever is read of it opens its seal
        context = opened or NO_CONTEXT
        with names_as_stored():
            doc_id, source = self.doc_id, self.source
        return PlainChunk(
            doc_id=as_given(doc_id, "doc_id", opened),
            source=as_given(source, "source", opened),
            chunk_index=self.chunk_index or 0,
            text=self.text or "",
            metadata=self.metadata,
            title=context.title,
            author=context.author,
            occurred_at=local_time(self.occurred_at, opened),
            expires_at=self.expires_at,
            id=self._id(),
            created_at=self.created_at,
            updated_at=self.updated_at,
        )

    def take_form(self, recipe: Recipe) -> None:
        """Have its names stored in the form that its tenant's recipe tells."""
        bare = (self.context or NO_CONTEXT)._replace(doc_id="", source="")
        named = with_names(bare, self.doc_id, self.source, recipe.names)
        if named != (self.context or NO_CONTEXT):
            self.doc_id, self.source = self.doc_id, self.source  # as they read, before what they are read from changes
            self._set_context(named)

    def prepare(self) -> None:
        """Refuse what cannot be stored: InvalidDocument names the field, NotSealed a column that holds no seal."""
        if not self._state.adding and not assigned_plain(self) and not self._time_changed:
            return
        for field in sealed_fields(type(self)):
            field.pre_save(self, self._state.adding)
        if not self.meta_cipher:
            self.metadata = {}
        if self._time_changed:
            refuse_invalid_time(self.occurred_at, "occurred_at")
            context = self.context or NO_CONTEXT
            self._set_context(context_of(self)._replace(doc_id=context.doc_id, source=context.source))
        refuse_invalid_chunk(self.plain())

    def require_unaltered(self, column: str) -> None:
        """Raise RowAltered unless the row, as it was read, is as it was written, with the seal in this column."""
        if self._as_read is not None:  # else it was made here
            self._as_read.refuse_altered(self.user_hash, self.enc_key_id, embedding=column == "emb_cipher")

    def read_whole(self) -> None:
        """Fetch, as of one moment, all that the MAC covers, unless it was; what was assigned here stays."""
        if self._as_read is None or self._as_read.is_whole:
            return
        before, values = self._as_read.values, type(self).objects.filter(id=self.id).values(*COVERED).get()
        for name, value in values.items():
            if name not in self.__dict__ or self.__dict__[name] == before.get(name):
                self.__dict__[name] = value
        self._as_read = AsRead(**values)

    def refresh_from_db(
        self,
        using: str | None = None,
        fields: Iterable[str] | None = None,
        from_queryset: models.QuerySet["MemoryChunk", "MemoryChunk"] | None = None,
    ) -> None:
        """Read all or some columns again, and compare the row with its MAC again."""
        fields = None if fields is None else list(fields)
        with names_as_stored():
            super().refresh_from_db(using, fields, from_queryset)
        before = self._as_read.values if self._as_read and fields is not None else {}
        again = {name: self.__dict__[name] for name in fields or READ if name in READ and name in self.__dict__}
        self._as_read = AsRead(**before | again)

    def stored(self, using: str | None) -> None:
        """Note that the row in the database is this one."""
        self._as_read = None
        self._state.adding, self._state.db = False, using
        self._stored_time = self.__dict__.get("occurred_at", self._stored_time)
        assigned_plain(self).clear()

    def _with_siblings(self, update_fields: Iterable[str] | None) -> Iterable[str] | None:
        """A time is told by the header that is embedded, and its zone is sealed, as names may be: the seals go with
        them."""
        if update_fields is not None and {"occurred_at", "doc_id", "source"} & (named := set(update_fields)):
            update_fields = named | {"emb_cipher"}
        return super()._with_siblings(update_fields)

    def _id(self) -> UUID | None:
        return self.id if isinstance(self.id, UUID) else None

    def _index(self, write: Writing, update_fields: Iterable[str] | None) -> None:
        """Have the index say what the stored row says. A partial save stores the seals all together or not at all."""
        indexed = {"occurred_at", "doc_id", "source", *(field.name for field in sealed_fields(type(self)))}
        if update_fields is None or indexed.intersection(update_fields):
            write.index_again(self)
        else:
            stored = type(self).objects.filter(id=self.id).values(*REPEATED).get()
            if stored["expires_at"] is not None:
                write.mark_expiring()
            MemoryVector.objects.filter(id=self.id).update(**stored)


class MemoryVector(TenantModel):
    """What a chunk is found by. A table of its own, so that re-sealing a chunk never touches a vector index.

    It repeats what a search filters and groups by, so that a scan reads one table.
    """

    pk = models.CompositePrimaryKey("user_hash", "id")
    id = models.UUIDField(editable=False)
    embedding = VectorField(dimensions=settings.MEMORY_EMBEDDING_DIM)
    lexical = SparseVectorField(dimensions=SPARSE_DIMENSIONS, null=True)
    doc_id = NameField(default="")
    source = NameField(default="", blank=True)
    chunk_index = models.IntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    labels = ArrayField(models.BigIntegerField(), default=list)
    outgrown = models.BooleanField(default=False, db_default=False)
    # By which recipe this row was made searchable (memory.index.recipe.Recipe.id); 0: from before rows told.
    recipe_id = models.BigIntegerField(default=0, db_default=0, editable=False)
    vector_mac = models.BinaryField(null=True, editable=False)
    occurred_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)

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
            models.Index(F("user_hash"), happened_at(), F("id"), name="memory_vectors_time"),
            models.Index(
                fields=["user_hash", "source", "id"], name="memory_vectors_source", condition=Q(outgrown=True)
            ),
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


class MemoryOperation(TenantModel):
    """An index call that was accepted and is done later (`memory.operations`). What it stores is sealed until it is
    done, and gone then; what it answers is sealed."""

    class State(models.TextChoices):
        """How far it is. The last two are final."""

        PENDING = "pending"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"

    UNFINISHED = (State.PENDING, State.RUNNING)

    pk = models.CompositePrimaryKey("user_hash", "id")
    id = models.UUIDField(db_default=UUID_V7, editable=False)
    # Its place in the user's order, which no clock decides.
    number = models.BigIntegerField(editable=False)
    state = models.TextField(choices=State, default=State.PENDING, db_default=State.PENDING)
    payload_cipher = SealedJSONField(plain="payload", null=True)
    result_cipher = SealedJSONField(plain="result", null=True)
    enc_key_id = models.TextField(editable=False)
    chunks_done = models.IntegerField(default=0, db_default=0)
    chunks_total = models.IntegerField(null=True)
    attempts = models.SmallIntegerField(default=0, db_default=0)
    # Who works on it, and until when nobody else does; for a pending one, until when nobody tries again.
    holder = models.TextField(default="", db_default="")
    held_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta(TenantModel.Meta):
        db_table = "memory_operations"
        constraints = [
            models.UniqueConstraint(fields=["user_hash", "number"], name="memory_operations_number"),
            models.CheckConstraint(
                condition=Q(user_hash__regex=USER_HASH_REGEX), name="memory_operations_user_hash_hex"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["pending", "running"], payload_cipher__isnull=False, finished_at__isnull=True)
                | Q(
                    state__in=["succeeded", "failed"],
                    payload_cipher__isnull=True,
                    result_cipher__isnull=False,
                    finished_at__isnull=False,
                ),
                name="memory_operations_state",
            ),
            models.CheckConstraint(condition=is_sealed("payload_cipher"), name="memory_operations_payload_sealed"),
            models.CheckConstraint(condition=is_sealed("result_cipher"), name="memory_operations_result_sealed"),
        ]
        indexes = [
            models.Index(
                fields=["user_hash", "number"],
                name="memory_operations_unfinished",
                condition=Q(state__in=["pending", "running"]),
            ),
            models.Index(
                fields=["user_hash", "finished_at"],
                name="memory_operations_finished",
                condition=Q(finished_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"operation {self.id} of tenant {self.user_hash[:8]}"


class MemoryRequest(TenantModel):
    """A request that came with an Idempotency-Key, and once it is done its answer (`memory.operations.idempotency`)."""

    pk = models.CompositePrimaryKey("user_hash", "id")
    id = models.UUIDField(db_default=UUID_V7, editable=False)
    # The key, hashed under a subkey of the tenant's.
    key_hash = models.TextField(editable=False)
    # What was asked, as a digest, and what was answered.
    record_cipher = SealedJSONField(plain="record")
    enc_key_id = models.TextField(editable=False)
    # Until when whoever carries it out is taken to be alive; null once it is answered.
    held_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantModel.Meta):
        db_table = "memory_requests"
        constraints = [
            models.UniqueConstraint(fields=["user_hash", "key_hash"], name="memory_requests_key"),
            models.CheckConstraint(condition=Q(user_hash__regex=USER_HASH_REGEX), name="memory_requests_user_hash_hex"),
            models.CheckConstraint(condition=is_sealed("record_cipher"), name="memory_requests_record_sealed"),
        ]

    def __str__(self) -> str:
        return f"request {self.id} of tenant {self.user_hash[:8]}"
