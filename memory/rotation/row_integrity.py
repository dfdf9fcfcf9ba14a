"""Compares a tenant's rows with their MACs, and its index entries (vector, keywords, labels, postings) with those
rebuilt from its opened seals."""

import hmac
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from django.conf import settings
from pgvector import SparseVector

from keys.exceptions import KeyConfigurationError
from keys.keyring import get_keyring
from keys.retry_while_away import retry_while_away
from memory.exceptions import IntegrityFailure, MACMissing, RowAltered, UnknownKeyId
from memory.index.context import NO_CONTEXT, local_time
from memory.index.keywords import lexical_column
from memory.index.labels import labels
from memory.index.names import DOC_ID, SOURCE, names_of, stored_name
from memory.index.recipe import Recipe, recorded
from memory.index.rows import PlainChunk
from memory.index.stored_macs import IndexedRow
from memory.index.tail import label_postings
from memory.index.vectors import original_from, searchable
from memory.rls import tenant_transaction_by_hash
from memory.rotation.findings import (
    ALTERED,
    COLUMNS,
    INDEX_ALTERED,
    KEYWORDS,
    LABELS,
    NO_MAC,
    POSTINGS,
    UNKNOWN_KEY,
    UNREADABLE,
    VECTOR,
    Finding,
    Inspection,
)
from memory.sealing.codecs import Context, ContextCodec, JSONCodec, TextCodec
from memory.sealing.opening import SealedRow, open_seals
from memory.sealing.row_macs import refuse_altered, row_keys
from memory.security import UserHash
from memory.tenancy.cursors import binary_cursor

# Cosines move by less than this. Turning a unit vector in float32 is exact to about 1e-6.
TOLERANCE = 1e-4
ROWS_A_READ = 500

# One statement reads rows and index settings, so that no reindex can come in between.
ROWS = """
SELECT c.id, c.text_cipher, c.meta_cipher, c.emb_cipher, c.context_cipher, c.enc_key_id, c.occurred_at,
       c.doc_id, c.source, c.chunk_index, c.created_at, c.updated_at, c.expires_at, c.chunk_mac, v.vector_mac,
       (SELECT recipe FROM tenants WHERE user_hash = %(user_hash)s), v.embedding, v.lexical, v.labels, v.outgrown,
       v.recipe_id,
       (v.doc_id, v.source, v.chunk_index, v.created_at, v.occurred_at, v.expires_at)
           IS NOT DISTINCT FROM (c.doc_id, c.source, c.chunk_index, c.created_at, c.occurred_at, c.expires_at),
       ARRAY(SELECT term FROM memory_terms WHERE user_hash = %(user_hash)s AND id = c.id ORDER BY term),
       ARRAY(SELECT weight FROM memory_terms WHERE user_hash = %(user_hash)s AND id = c.id ORDER BY term)
FROM memory_chunks c LEFT JOIN memory_vectors v ON v.user_hash = c.user_hash AND v.id = c.id
WHERE c.user_hash = %(user_hash)s AND c.id > %(after)s AND (%(sample)s::float8 >= 1 OR random() < %(sample)s::float8)
ORDER BY c.id LIMIT %(limit)s
"""

_text, _json, _context = TextCodec(), JSONCodec(), ContextCodec()


class Row(NamedTuple):
    """A stored chunk, its index entries, and the index settings recorded for its tenant."""

    id: UUID
    text_cipher: bytes
    meta_cipher: bytes
    emb_cipher: bytes
    context_cipher: bytes | None
    key_id: str
    occurred_at: datetime | None
    doc_id: str
    source: str
    chunk_index: int
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    chunk_mac: bytes | None
    vector_mac: bytes | None
    recipe: str | None
    embedding: Any
    lexical: SparseVector | None
    labels: list[int] | None
    outgrown: bool | None
    recipe_id: int | None
    columns_agree: bool | None
    terms: list[int]
    weights: list[float]

    @property
    def indexed(self) -> IndexedRow:
        """Its row of memory_vectors, which must be there."""
        return IndexedRow(self.id, self.embedding, self.lexical, self.labels or [], self.recipe_id or 0)

    @property
    def made_by(self) -> Recipe | None:
        """The recipe by which its index entries were made; None while a reindex is about to make them anew."""
        return recorded(self.recipe or "").made(self.recipe_id or 0)


def inspect_rows(seen: Inspection, user_hash: UserHash, sample: float) -> Iterator[int]:
    """Inspect a share of a tenant's rows, and report to `seen`. Yields the number of rows of each read."""
    after = UUID(int=0)
    while rows := retry_while_away(_read, user_hash, after, sample):
        seen.rows += len(rows)
        seen.report(_inspect(seen, user_hash, rows))
        yield len(rows)
        after = rows[-1].id


def _read(user_hash: UserHash, after: UUID, sample: float) -> list[Row]:
    with tenant_transaction_by_hash(user_hash), binary_cursor() as cursor:
        cursor.execute(ROWS, {"user_hash": user_hash, "after": after, "sample": sample, "limit": ROWS_A_READ})
        return [Row(*row) for row in cursor.fetchall()]


def _inspect(seen: Inspection, user_hash: UserHash, rows: Sequence[Row]) -> Iterator[Finding]:
    opened: list[tuple[Row, PlainChunk, np.ndarray]] = []
    holds_keys = _holds(user_hash.hmac_key_id)
    for row in rows:
        sealed = SealedRow(user_hash, "memory_chunks", (user_hash, row.id), row.key_id)
        try:
            (text, metadata, original, context), drifted = open_seals(
                sealed,
                (row.text_cipher, _text.decode),
                (row.meta_cipher, _json.decode),
                (row.emb_cipher, original_from),
                (row.context_cipher, _context.decode),
            )
            if holds_keys:
                refuse_altered(user_hash, row, row.chunk_mac, row.emb_cipher, row.key_id)
        except (RowAltered, MACMissing) as failure:
            yield _finding(
                NO_MAC if isinstance(failure, MACMissing) else ALTERED, user_hash, row, f"its MAC {failure.reason}"
            )
        except IntegrityFailure as failure:
            kind = UNKNOWN_KEY if isinstance(failure, UnknownKeyId) else UNREADABLE
            yield _finding(kind, user_hash, row, failure.reason)
        else:
            seen.drifted += drifted
            seen.without_mac += row.chunk_mac is None
            opened.append((row, _plain(row, text, metadata, context or NO_CONTEXT), original))
        if row.embedding is None:
            yield _finding(COLUMNS, user_hash, row, "it has no vector")
        elif not row.columns_agree:
            yield _finding(COLUMNS, user_hash, row, "the index repeats its columns wrongly")
    if not holds_keys:
        return
    different = set()
    for finding in _inspect_index(user_hash, opened):
        if finding.kind != POSTINGS:
            different.add(finding.row)
        yield finding
    yield from _inspect_vector_macs(user_hash, [row for row, *_ in opened if str(row.id) not in different])


def _inspect_index(user_hash: UserHash, opened: Sequence[tuple[Row, PlainChunk, np.ndarray]]) -> Iterator[Finding]:
    for row, chunk, _ in opened:
        yield from _inspect_names(user_hash, row, chunk)
    for recipe in {made_by for row, *_ in opened if (made_by := row.made_by)}:
        indexed = [each for each in opened if each[0].embedding is not None and each[0].made_by == recipe]
        if indexed:
            yield from _inspect_vectors(
                user_hash, recipe, [row for row, *_ in indexed], [original for *_, original in indexed]
            )
        for row, chunk, _ in indexed:
            yield from _inspect_keywords(user_hash, recipe, row, chunk)


def _plain(row: Row, text: str, metadata: dict[str, Any], context: Context) -> PlainChunk:
    """As much of a chunk as its index entries are made of."""
    occurred_at = local_time(row.occurred_at, context)
    doc_id, source = names_of(row.doc_id, row.source, context)
    return PlainChunk(
        doc_id=doc_id,
        source=source,
        chunk_index=0,
        text=text,
        metadata=metadata,
        title=context.title,
        author=context.author,
        occurred_at=occurred_at,
    )


def _inspect_names(user_hash: UserHash, row: Row, chunk: PlainChunk) -> Iterator[Finding]:
    form = recorded(row.recipe or "").names
    wanted = [stored_name(user_hash, column, getattr(chunk, column), form) for column in (DOC_ID, SOURCE)]
    if wanted != [row.doc_id, row.source]:
        yield _finding(COLUMNS, user_hash, row, "its doc_id and source are not those that are sealed with it")


def _inspect_vector_macs(user_hash: UserHash, rows: Sequence[Row]) -> Iterator[Finding]:
    """Exactly as it was written, where the comparison with the seals allows for rounding."""
    keys = row_keys(user_hash)
    for row in rows:
        if row.embedding is None:
            continue
        if row.vector_mac is None:
            if not settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC:
                yield _finding(NO_MAC, user_hash, row, f"its MAC in the index {MACMissing.reason}")
        elif row.columns_agree and not hmac.compare_digest(row.indexed.mac(keys, row), row.vector_mac):
            yield _finding(INDEX_ALTERED, user_hash, row, "its row in the index is not as it was written")


def _inspect_vectors(
    user_hash: UserHash, recipe: Recipe, rows: Sequence[Row], originals: Sequence[np.ndarray]
) -> Iterator[Finding]:
    wanted = searchable(np.stack(originals), user_hash, recipe)
    stored = np.stack([row.embedding.to_numpy() for row in rows])
    distances = np.abs(wanted - stored).max(axis=1)
    for row, distance in zip(rows, distances, strict=True):
        if not distance <= TOLERANCE:
            detail = f"the vector in the index is not its sealed original's (off by {distance:.2g})"
            yield _finding(VECTOR, user_hash, row, detail)


def _inspect_keywords(user_hash: UserHash, recipe: Recipe, row: Row, chunk: PlainChunk) -> Iterator[Finding]:
    wanted = _weights(lexical_column(chunk, user_hash, recipe))
    if (row.lexical is None) != (recipe.language is None) or not _same(_weights(row.lexical), wanted):
        yield _finding(KEYWORDS, user_hash, row, "the keywords in the index are not its sealed text's")
    # Rows of the first form may have been moved into the indexes before labels were posted, or after.
    posting_labels = recipe.tells_presence
    found = {term: weight for term, weight in zip(row.terms, row.weights, strict=True) if term >= 0 or posting_labels}
    if posting_labels:
        wanted = wanted | label_postings(labels(user_hash, chunk.metadata, recipe))
    if not _same(found, wanted if row.outgrown else {}):
        what = "are not its sealed text's" if row.outgrown else "are there, although it is still scanned"
        yield _finding(POSTINGS, user_hash, row, f"its postings {what}")
    if sorted(row.labels or ()) != labels(user_hash, chunk.metadata, recipe):
        yield _finding(LABELS, user_hash, row, "the labels in the index are not its sealed metadata's")


def _weights(lexical: SparseVector | None) -> dict[int, float]:
    return {} if lexical is None else dict(zip(lexical.indices(), lexical.values(), strict=True))


def _same(stored: dict[int, float], wanted: dict[int, float]) -> bool:
    return stored.keys() == wanted.keys() and all(abs(stored[term] - wanted[term]) <= TOLERANCE for term in wanted)


def _finding(kind: str, user_hash: UserHash, row: Row, detail: str) -> Finding:
    return Finding(kind, user_hash[:8], str(row.id), row.key_id, detail)


def _holds(hmac_key_id: str) -> bool:
    """Whether this process has the HMAC key, without which a tenant's index entries cannot be rebuilt."""
    try:
        get_keyring().hashing_key(hmac_key_id)
    except KeyConfigurationError:
        return False
    return True
