"""Changes stored memories: one chunk, or all chunks of a document.

A change is made to what is stored while the tenant's lock is held, never to what was read before. If it needs an
embedding that is not at hand, the lock is given back, the text is embedded outside any transaction, and the change is
made anew to what is stored by then. So two changes at once run one after the other, and neither undoes the other.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from django.conf import settings

from keys import nonce_budget
from keys.keyring import get_keyring
from memory import metrics
from memory.documents.patches import Patch
from memory.exceptions import ChangedMeanwhile, ChunkNotFound, DocumentTooLarge
from memory.index.changed_rows import delete_rows, insert_embedded, update_metadata
from memory.index.embedding import embed_passages
from memory.index.names import DOC_ID, stored_name
from memory.index.recipe import Recipe, for_new_embeddings, recorded
from memory.index.rows import PlainChunk
from memory.index.stored_rows import LOCK_DOCUMENT, LOCK_SOME, StoredRow, open_row, read
from memory.index.tail import has_outgrown, keep_up
from memory.index.vectors import as_embedding
from memory.listing import StoredChunk
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.security import UserHash
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor
from memory.tenancy.row_set import RowSetChange
from memory.verbs.planned_chunks import PlannedChunk, StoredBefore, resplit

# How often texts are embedded again because others changed meanwhile what is embedded with them.
ATTEMPTS = 8

Plan = Callable[[Sequence[StoredBefore]], list[PlannedChunk]]


@dataclass(frozen=True)
class PatchedDocument:
    """A changed document: the ids of its chunks in order, and how many texts were embedded for it."""

    doc_id: str
    chunk_ids: list[UUID]
    embedded: int


def patch_chunk(*, user_id: str, chunk_id: UUID, patch: Patch) -> StoredChunk:
    """Change one chunk; returns it as it is stored now. Its id, its place and its `created_at` stay.

    Only a text that changes is embedded. Raises ChunkNotFound, IntegrityFailure when the stored chunk does not open,
    InvalidDocument naming the field, ChangedMeanwhile, EmbeddingModelUnavailable.
    """
    given = None if patch.embedding is None else as_embedding(patch.embedding)

    def plan(stored: Sequence[StoredBefore]) -> list[PlannedChunk]:
        return [PlannedChunk(patch.applied_to(each.chunk), each, given) for each in stored]

    (chunk,), _ = _change(user_id, LOCK_SOME, {"ids": [chunk_id]}, plan)
    return StoredChunk.of(chunk)


def patch_document(*, user_id: str, doc_id: str, patch: Patch) -> PatchedDocument:
    """Change every chunk of a document. With a new text, chunks whose own text stays keep their ids and embeddings.

    Raises as `patch_chunk`, and DocumentTooLarge for a document of more than MEMORY_MAX_CHUNKS chunks.
    """
    most = settings.MEMORY_MAX_CHUNKS
    texts = None if patch.text is None else patch.split_text(patch.applied_to(_first_chunk(user_id, doc_id)))

    def plan(stored: Sequence[StoredBefore]) -> list[PlannedChunk]:
        if len(stored) > most:
            raise DocumentTooLarge("doc_id", f"This document has more than {most} chunks: change them one by one.")
        planned = [PlannedChunk(patch.applied_to(each.chunk), each) for each in stored]
        return planned if texts is None else list(resplit(planned, texts))

    chunks, embedded = _change(user_id, LOCK_DOCUMENT, {"limit": most + 1}, plan, doc_id)
    return PatchedDocument(doc_id, [chunk.id for chunk in chunks if chunk.id], embedded)


def _first_chunk(user_id: str, doc_id: str) -> PlainChunk:
    """By whose header a new text is split, before the lock. If that changes meanwhile, a chunk may be a little long."""
    with tenant_transaction(user_id):
        found = (
            MemoryChunk.objects.unexpired().defer("emb_cipher").filter(doc_id=doc_id).order_by("chunk_index").first()
        )
        if found is None:
            raise ChunkNotFound(ChunkNotFound.__doc__)
        return found.plain()


def _change(
    user_id: str, locking: str, parameters: dict[str, Any], plan: Plan, doc_id: str = ""
) -> tuple[list[PlainChunk], int]:
    """Lock chunks by a LOCK statement and store what `plan` makes of them; returns that, and how many texts were
    embedded. `doc_id`: of the document that the statement names, if it does."""
    nonce_budget.open_account()
    made: dict[str, np.ndarray] = {}
    for _ in range(ATTEMPTS):
        with metrics.stage("patch", "write"), tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
            tenant = tenant_row.lock(cursor, user_hash)
            if tenant is None:
                raise ChunkNotFound(ChunkNotFound.__doc__)
            recipe = recorded(tenant.recipe)
            if doc_id:
                parameters = parameters | {"doc_id": stored_name(user_hash, DOC_ID, doc_id, recipe.names)}
            stored = _opened(read(cursor, locking, user_hash=user_hash, **parameters), user_hash, recipe)
            if not any(map(_is_there, stored)):
                raise ChunkNotFound(ChunkNotFound.__doc__)
            planned = plan(stored)
            missing = list(dict.fromkeys(each.text_to_embed for each in planned if each.vector(made) is None))
            if not missing:
                change = RowSetChange(user_hash)
                chunks, rewritten = _store(cursor, user_hash, recipe, stored, planned, made, change)
                if not change.is_empty:
                    cursor.execute(*tenant_row.change_rows(user_hash, tenant, change))
                break
        with metrics.stage("patch", "embed"):
            made |= dict(zip(missing, embed_passages(missing), strict=True))
    else:
        raise ChangedMeanwhile(ChangedMeanwhile.__doc__)
    if rewritten and has_outgrown(tenant.chunk_count):
        keep_up(user_id=user_id, written=rewritten)
    return chunks, len(made)


def _is_there(stored: StoredBefore) -> bool:
    """Whether it has not expired."""
    expires_at = stored.chunk.expires_at
    return expires_at is None or expires_at > datetime.now(UTC)


def _opened(rows: Iterable[StoredRow], user_hash: UserHash, recipe: Recipe) -> list[StoredBefore]:
    # All seals of a row stand under one key; and while a reindex is under way, a row may be of either kind, so that
    # its labels could not be made anew without all else.
    sealing, reindexing = get_keyring().sealing.key_id, bool(recipe.kinds)
    return [
        StoredBefore(row, opened.chunk, opened.original, stands=row.enc_key_id == sealing and not reindexing)
        for row in rows
        for opened in [open_row(row, user_hash)]
    ]


def _store(
    cursor: psycopg.Cursor[Any],
    user_hash: UserHash,
    recipe: Recipe,
    stored: Sequence[StoredBefore],
    planned: Sequence[PlannedChunk],
    made: dict[str, np.ndarray],
    change: RowSetChange,
) -> tuple[list[PlainChunk], int]:
    """Write what is planned; returns the chunks as they are stored now, and how many of them are new rows."""
    now = datetime.now(UTC)
    chunks = [replace(each.chunk, updated_at=now) if each.is_changed else each.chunk for each in planned]
    pairs = list(zip(planned, chunks, strict=True))
    staying = {chunk.id for each, chunk in pairs if each.can_stay}
    gone = [each.chunk.id for each in stored if each.chunk.id and each.chunk.id not in staying]
    kept = [(chunk, each.kept) for each, chunk in pairs if not each.can_stay and each.kept is not None]
    new = [(chunk, each.new(made)) for each, chunk in pairs if not each.can_stay and each.kept is None]
    changed = [
        (each.before.row, each.before.chunk, chunk)
        for each, chunk in pairs
        if each.can_stay and each.is_changed and each.before
    ]
    update_metadata(cursor, user_hash, changed, recipe, change)
    delete_rows(cursor, user_hash, gone, change)
    insert_embedded(cursor, user_hash, kept, recipe, change)
    insert_embedded(cursor, user_hash, new, for_new_embeddings(recipe), change)
    rewritten = len(kept) + len(new)
    metrics.CHUNKS_INDEXED.inc(rewritten)
    return chunks, rewritten
