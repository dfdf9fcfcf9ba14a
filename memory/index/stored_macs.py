"""The MACs of stored rows: compared before a row is trusted again, and made anew where a row was changed in place."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from django.conf import settings
from pgvector import SparseVector

from memory.index.rows import CHUNKS, VECTORS, array_text
from memory.index.stored_rows import LOCK_SOME, StoredRow, read
from memory.sealing.row_macs import RowKeys, new_version, refuse_altered, row_keys
from memory.security import UserHash

# What a chunk's MAC covers and the MAC, but for the embedding, which need not be fetched to compare it.
COVERED = tuple(column for column in CHUNKS.columns if column not in ("emb_cipher", "enc_key_id"))
READ = (*COVERED, "emb_cipher")
INDEXED = (
    "SELECT id, embedding, lexical, labels, recipe_id FROM memory_vectors"
    " WHERE user_hash = %(user_hash)s AND id = ANY (%(ids)b::uuid[])"
)


IN_SCOPE = (
    "SELECT v.id, v.embedding, v.lexical, v.labels, v.recipe_id, v.doc_id, v.source, v.chunk_index, v.created_at,"
    " v.occurred_at, v.expires_at, v.vector_mac FROM memory_vectors v WHERE v.user_hash = %(user_hash)s"
)


class IndexedRow(NamedTuple):
    """What a row of memory_vectors holds beside the columns that it repeats."""

    id: UUID
    embedding: Any
    lexical: SparseVector | None
    labels: list[int]
    recipe_id: int

    def mac(self, keys: RowKeys, row: Any) -> bytes:
        """The MAC that it should have, beside this row of memory_chunks."""
        vector, labels = self.embedding.to_numpy(), array_text(sorted(self.labels))
        return keys.vector_mac(row, vector, self.lexical, labels, self.recipe_id)


class PlacedIndexedRow(NamedTuple):
    """A row of memory_vectors with the columns that it repeats, and its MAC."""

    id: UUID
    embedding: Any
    lexical: SparseVector | None
    labels: list[int]
    recipe_id: int
    doc_id: str
    source: str
    chunk_index: int
    created_at: datetime
    occurred_at: datetime | None
    expires_at: datetime | None
    vector_mac: bytes | None


@dataclass(frozen=True)
class NewMAC:
    """The id of a row of memory_vectors, and the MAC that it gets."""

    id: UUID
    vector_mac: bytes


def locked_unaltered(cursor: psycopg.Cursor[Any], user_hash: UserHash, ids: Sequence[UUID]) -> list[StoredRow]:
    """Lock rows that are about to be changed in place, under the tenant's lock. Raises RowAltered, for a change would
    give an altered row a MAC that is right, and MACMissing."""
    rows = read(cursor, LOCK_SOME, user_hash=user_hash, ids=list(ids))
    for row in rows:
        refuse_altered(user_hash, row, row.chunk_mac, row.emb_cipher, row.enc_key_id)
    return rows


def authenticate(cursor: psycopg.Cursor[Any], user_hash: UserHash, ids: Sequence[UUID]) -> list[StoredRow]:
    """Give rows the MACs of what they are now, with new versions; returns them with these. The rows must be locked, and
    have been what they were written as before they were changed."""
    keys = row_keys(user_hash)
    rows = read(cursor, LOCK_SOME, user_hash=user_hash, ids=list(ids))
    made = [row._replace(chunk_mac=new_chunk_mac(keys, row)) for row in rows]
    if made:
        cursor.execute(*CHUNKS.updating(user_hash, made, ("chunk_mac",)))
    authenticate_index(cursor, user_hash, made)
    return made


def authenticate_index(cursor: psycopg.Cursor[Any], user_hash: UserHash, rows: Sequence[StoredRow]) -> None:
    """Give rows of memory_vectors the MACs of what they are now, beside these rows of memory_chunks."""
    keys, stored = row_keys(user_hash), {row.id: row for row in rows}
    cursor.execute(INDEXED, {"user_hash": user_hash, "ids": list(stored)})
    indexed = [IndexedRow(*row) for row in cursor.fetchall()]
    if indexed:
        macs = [NewMAC(each.id, each.mac(keys, stored[each.id])) for each in indexed]
        cursor.execute(*VECTORS.updating(user_hash, macs, ("vector_mac",)))


def new_chunk_mac(keys: RowKeys, row: StoredRow) -> bytes:
    """The MAC of a row as it is, with a new version."""
    return keys.chunk_mac(row, sha256(row.emb_cipher).digest(), new_version())


def altered_in_index(
    cursor: psycopg.Cursor[Any], user_hash: UserHash, conditions: str, parameters: Mapping[str, Any]
) -> set[UUID]:
    """Which of the rows that `conditions` (SQL over `v`) find in memory_vectors are not there as they were written."""
    keys = row_keys(user_hash)
    cursor.execute(f"{IN_SCOPE}{conditions}", {"user_hash": user_hash, **parameters})
    return {row.id for row in map(PlacedIndexedRow._make, cursor) if not _is_as_written(keys, row)}


def _is_as_written(keys: RowKeys, row: PlacedIndexedRow) -> bool:
    if row.vector_mac is None:
        return bool(settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC)
    return hmac.compare_digest(IndexedRow(*row[:5]).mac(keys, row), row.vector_mac)


class AsRead:
    """A chunk's columns as they were fetched, compared with its MAC once, before the first of its seals is trusted."""

    def __init__(self, **values: Any) -> None:
        self.values = values
        self._compared = False

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def is_whole(self) -> bool:
        """Whether all that the MAC covers was fetched."""
        return all(column in self.values for column in COVERED)

    def refuse_altered(self, user_hash: str, key_id: str | None, *, embedding: bool = False) -> None:
        """Raise RowAltered or MACMissing. `embedding`: its seal, if it was fetched, is to be trusted as well."""
        emb_cipher = self.values.get("emb_cipher") if embedding else None
        if not self._compared or emb_cipher is not None:
            refuse_altered(user_hash, self, self.chunk_mac, emb_cipher, key_id)
        self._compared = True
