"""Brings the names of all rows of a tenant to another form: readable or sealed (`memory.index.names`).

In one transaction, under the lock that every writer takes: so at no moment, and after no kill, are there rows of two
forms, and a name is looked up in one. The tenant's writers wait meanwhile, its readers do not. Vectors and keywords
stay as they are; rows in the vector graph go back into the tail, for it would take each of them anew under the lock.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from keys import nonce_budget, steps
from keys.keyring import get_keyring
from memory import metrics
from memory.exceptions import IntegrityFailure
from memory.index.changed_rows import DELETE_POSTINGS
from memory.index.context import NO_CONTEXT
from memory.index.names import DOC_ID, SOURCE, names_of, stored_name, with_names
from memory.index.recipe import recorded
from memory.index.rows import CHUNKS, SEALED_COLUMNS, VECTORS
from memory.index.stored_macs import authenticate_index, new_chunk_mac
from memory.index.stored_rows import READ_BEHIND, StoredRow, read
from memory.rls import tenant_transaction_by_hash
from memory.sealing.codecs import Context, ContextCodec
from memory.sealing.fields import seal_value
from memory.sealing.opening import SealedRow, open_seals
from memory.sealing.row_macs import refuse_altered
from memory.security import UserHash, aad_for, seal
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor
from memory.tenancy.row_set import RowSetChange

ROWS_PER_STEP = 500
NAMES = (DOC_ID, SOURCE)
# A rotation re-seals rows without the tenant's lock: they are locked as they are read.
LOCK_BEHIND = f"{READ_BEHIND} FOR NO KEY UPDATE"

_context = ContextCodec()


@dataclass(frozen=True)
class Renamed:
    """How many rows have their names in the other form now, and how many do not open and stay as they were."""

    rows: int = 0
    unreadable: int = 0


def change_names(user_hash: str, names: int, *, progress: Callable[[int], None] = lambda rows: None) -> Renamed:
    """Bring a tenant's names to the form `names`, unless they have it."""
    nonce_budget.open_account()
    done = unreadable = 0
    with tenant_transaction_by_hash(user_hash) as tenant, binary_cursor() as cursor:
        row = tenant_row.lock(cursor, tenant)
        if row is None or recorded(row.recipe).names == names:
            return Renamed()
        change = RowSetChange(tenant)
        for stored in _batches(cursor, tenant):
            pairs = [(each, named) for each in stored if (named := _renamed(tenant, each, names))]
            for before, after in pairs:
                change.remove(before)
                change.add(after)
            renamed = [after for _, after in pairs]
            _write(cursor, tenant, renamed)
            done, unreadable = done + len(renamed), unreadable + len(stored) - len(renamed)
            progress(len(renamed))
            steps.reached("names written")
        if not change.is_empty:
            cursor.execute(*tenant_row.change_rows(tenant, row, change))
        cursor.execute(*tenant_row.record_recipe(tenant, recorded(row.recipe).with_names(names).as_text()))
        steps.reached("form of names recorded")
    return Renamed(done, unreadable)


def _batches(cursor: psycopg.Cursor[Any], tenant: UserHash) -> Iterator[list[StoredRow]]:
    low = UUID(int=0)
    while stored := read(cursor, LOCK_BEHIND, user_hash=tenant, low=low, limit=ROWS_PER_STEP):
        yield stored
        low = UUID(int=stored[-1].id.int + 1)


def _renamed(tenant: UserHash, row: StoredRow, names: int) -> StoredRow | None:
    """The row with its names in another form; None for one that does not open, or is not as it was written."""
    try:
        *others, context = _opened(tenant, row)
        keys = refuse_altered(tenant, row, row.chunk_mac, row.emb_cipher, row.enc_key_id)
    except IntegrityFailure:
        return None
    doc_id, source = names_of(row.doc_id, row.source, context)
    bare = (context or NO_CONTEXT)._replace(doc_id="", source="")
    renamed = row._replace(
        doc_id=stored_name(tenant, DOC_ID, doc_id, names),
        source=stored_name(tenant, SOURCE, source, names),
        context_cipher=_sealed_context(tenant, with_names(bare, doc_id, source, names)),
    )
    sealing, aad = get_keyring().sealing.key_id, aad_for(tenant)
    if row.enc_key_id != sealing:  # all seals of a row stand under one key
        text, meta, emb = (seal(data, aad) for data in others)
        renamed = renamed._replace(text_cipher=text, meta_cipher=meta, emb_cipher=emb, enc_key_id=sealing)
        metrics.SEALS.inc(len(others))
    return renamed if keys is None else renamed._replace(chunk_mac=new_chunk_mac(keys, renamed))


def _opened(tenant: UserHash, row: StoredRow) -> list[Any]:
    return open_seals(
        SealedRow(tenant, "memory_chunks", (tenant, row.id), row.enc_key_id),
        (row.text_cipher, bytes),
        (row.meta_cipher, bytes),
        (row.emb_cipher, bytes),
        (row.context_cipher, _context.decode),
    ).values


def _sealed_context(tenant: UserHash, context: Context) -> bytes | None:
    return None if context == NO_CONTEXT else bytes(seal_value(_context.encode(context), tenant))


def _write(cursor: psycopg.Cursor[Any], tenant: UserHash, rows: Sequence[StoredRow]) -> None:
    if rows:
        # The vectors first: that waits for whoever is just making their postings, which are there to be deleted then.
        cursor.execute(*VECTORS.updating(tenant, rows, NAMES, also="outgrown = false"))
        cursor.execute(DELETE_POSTINGS, [tenant, [row.id for row in rows]])
        cursor.execute(*CHUNKS.updating(tenant, rows, (*NAMES, *SEALED_COLUMNS)))
        authenticate_index(cursor, tenant, [row for row in rows if row.chunk_mac is not None])
