"""Runs every statement of the write path once, as the application's role, and takes all of it back.

For an engine that takes most of Postgres' SQL but not all of it: what is tried are the writers' own statements.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
from django.conf import settings
from django.db import DatabaseError, transaction

from memory.index import rows
from memory.index.changed_rows import DELETE_CHUNKS, METADATA_COLUMNS
from memory.index.name_reindex import NAMES
from memory.index.recipe import configured
from memory.index.rows import CHUNKS, SEALED_COLUMNS, VECTORS, PlainChunk, build_rows
from memory.index.stored_rows import LOCK_DOCUMENT, LOCK_SOME, READ_BEHIND, READ_SOME, read
from memory.index.tables import insert
from memory.index.tail import TERMS, Posting, index_rows_of_tail
from memory.index.tenant_reindex import LOCKED_VERSIONS, NEWEST, TODO
from memory.rls import tenant_transaction
from memory.security import UserHash
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor
from memory.tenancy.row_set import RowSetChange

USER_ID = "service:dry-run:writes"
FEW = 3


def refused_statement() -> str | None:
    """What is refused and why, in a line; None when the database takes every statement."""
    step = "the tenant's transaction"
    try:
        with tenant_transaction(USER_ID) as user_hash, binary_cursor() as cursor:
            for step, run in _steps(cursor, user_hash):  # noqa: B007
                run()
            step = "the end of the transaction"
            transaction.set_rollback(True)
    except DatabaseError as error:
        return f"{step}: {str(error).splitlines()[0]}"
    return None


def _steps(cursor: psycopg.Cursor[Any], user_hash: UserHash) -> Iterator[tuple[str, Callable[[], object]]]:
    chunks = [PlainChunk("dry-run", "", place, "a few words", {}, title="A title") for place in range(FEW)]
    sealed = list(build_rows(user_hash, chunks, np.ones((FEW, settings.MEMORY_EMBEDDING_DIM), dtype=np.float32)))
    ids, doc_id = [row.id for row in sealed], sealed[0].doc_id
    vector_columns = [column for column in VECTORS.columns if column != "id"]
    postings = [Posting(1, chunk_id, 1.0) for chunk_id in ids]

    def execute(statement: str, parameters: Any) -> Callable[[], object]:
        return lambda: cursor.execute(statement, parameters)

    recipe, change = configured().as_text(), RowSetChange(user_hash)
    yield "making and locking a tenant", lambda: tenant_row.lock_or_create(cursor, USER_ID, user_hash, recipe)
    yield "the next place in a document", execute(rows.NEXT_PLACE, [user_hash, doc_id])
    yield "inserting chunks and vectors", lambda: rows.insert_rows(cursor.connection, user_hash, sealed, change)
    yield "counting chunks", lambda: cursor.execute(*tenant_row.change_rows(user_hash, None, change))
    yield "inserting postings", lambda: insert(cursor.connection, user_hash, postings, TERMS)
    yield "deleting postings", execute("DELETE FROM memory_terms WHERE user_hash = %s", [user_hash])
    yield "moving rows into the indexes", lambda: index_rows_of_tail(cursor, user_hash, FEW)
    yield "updating vectors", execute(*VECTORS.updating(user_hash, sealed, vector_columns, also="outgrown = false"))
    yield "updating seals", execute(*CHUNKS.updating(user_hash, sealed, SEALED_COLUMNS))
    yield "updating names", execute(*CHUNKS.updating(user_hash, sealed, (*NAMES, *SEALED_COLUMNS)))
    yield "finding rows to reindex", execute(TODO, [user_hash, ids[0], ids[-1], 0, False, [], FEW])
    yield "finding the newest row", execute(NEWEST, [user_hash])
    yield "locking rows with their versions", execute(LOCKED_VERSIONS, [user_hash, ids])
    yield "recording index settings", execute(*tenant_row.record_recipe(user_hash, recipe))
    yield "reading rows in order", lambda: read(cursor, READ_BEHIND, user_hash=user_hash, low=ids[0], limit=FEW)
    yield "reading rows by their ids", lambda: read(cursor, READ_SOME, user_hash=user_hash, ids=ids)
    yield "locking rows", lambda: read(cursor, LOCK_SOME, user_hash=user_hash, ids=ids)
    yield "locking a document", lambda: read(cursor, LOCK_DOCUMENT, user_hash=user_hash, doc_id=doc_id, limit=FEW)
    yield "updating metadata", execute(*CHUNKS.updating(user_hash, sealed, METADATA_COLUMNS))
    yield "deleting chunks", execute(DELETE_CHUNKS, [user_hash, ids[:1]])
    yield "deleting documents", execute(rows.DELETE_DOCUMENTS, [user_hash, [doc_id]])
