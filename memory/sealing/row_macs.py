"""MACs of stored rows: a cell that was edited, swapped, copied from another row or put back is noticed.

A seal binds its user, not its row. So each row carries MACs under subkeys of its tenant:

    memory_chunks.chunk_mac     version (16 random bytes) || SHA-256 of emb_cipher || HMAC-SHA256
    memory_vectors.vector_mac   HMAC-SHA256

The first covers the version, id, document, source, place, the four times, and the seals. That of the embedding is
covered by its digest, which is stored beside, so that a query need not fetch it. The second covers what a chunk is
found by, which is made anew without the rest: the columns that the index repeats, vector, keywords, labels and the
recipe. `enc_key_id` is covered by neither: it is a hint, and whether it is right is told by opening.

Every write draws a new version, re-sealing excepted: a row that says the same keeps it. Fields have a fixed size or
their length before them, so that no two rows make one message.
"""

import hmac
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from django.conf import settings

from keys.keyring import get_keyring
from memory import metrics
from memory.exceptions import IntegrityFailure, MACMissing, RowAltered
from memory.sealing.subkeys import row_subkeys
from memory.security import UserHash

VERSION_BYTES, DIGEST_BYTES, MAC_BYTES = 16, 32, 32
CHUNK_MAC_BYTES = VERSION_BYTES + DIGEST_BYTES + MAC_BYTES
COLUMN = "chunk_mac"

# id, chunk_index, created_at, occurred_at, expires_at, and the lengths of doc_id and source.
_PLACE = struct.Struct(">16si12s12s12sII")
_INSTANT = struct.Struct(">iii")  # days, seconds, microseconds
_NEVER = _INSTANT.pack(-(2**31), 0, 0)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LENGTH = struct.Struct(">I")
_ABSENT = b"\xff\xff\xff\xff"  # no length
_INDEXED = struct.Struct(">qII")  # recipe_id, and the lengths of labels and vector
_VECTOR_HEADER = struct.Struct(">HH")  # as pgvector sends it


class PlacedRow(Protocol):
    """What both tables say of a row. Times are aware."""

    @property
    def id(self) -> Any: ...
    @property
    def doc_id(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def chunk_index(self) -> int: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def occurred_at(self) -> datetime | None: ...
    @property
    def expires_at(self) -> datetime | None: ...


class VersionedRow(PlacedRow, Protocol):
    """What memory_chunks says of a row in clear."""

    @property
    def updated_at(self) -> datetime: ...


class SealedChunk(VersionedRow, Protocol):
    """A row of memory_chunks, but for the seal of its embedding."""

    @property
    def text_cipher(self) -> Any: ...
    @property
    def meta_cipher(self) -> Any: ...
    @property
    def context_cipher(self) -> Any: ...


class HMACSHA256:
    """HMAC-SHA256 (RFC 2104) under one key, whose two padded blocks are hashed once: a third of the time."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        if len(key) > 64:
            raise ValueError("A key of at most one block.")
        block = key.ljust(64, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))

    def __call__(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


@dataclass(frozen=True, slots=True, repr=False)
class RowKeys:
    """The MACs of one tenant's rows. `element`: what a row counts for in the set of them (`memory.tenancy.row_set`)."""

    _chunk: HMACSHA256
    _vector: HMACSHA256
    _element: HMACSHA256

    def chunk_mac(self, row: SealedChunk, emb_digest: bytes, version: bytes, place: bytes = b"") -> bytes:
        """The column of a row of memory_chunks with this version and this SHA-256 of its sealed embedding. `place`: its
        `place_of`, where it is known."""
        return version + emb_digest + self._chunk(_chunk_message(row, emb_digest, version, place))

    def vector_mac(
        self,
        row: PlacedRow,
        embedding: np.ndarray,
        lexical: Any,
        labels: str,
        recipe_id: int,
        place: bytes = b"",
    ) -> bytes:
        """The column of a row of memory_vectors. `labels`: the array's text, `lexical`: a SparseVector or None."""
        vector = _VECTOR_HEADER.pack(len(embedding), 0) + embedding.astype(">f4").tobytes()
        keywords = b"" if lexical is None else lexical.to_binary()
        sizes = _INDEXED.pack(recipe_id, len(labels), len(vector))
        return self._vector(b"".join((place or place_of(row), sizes, labels.encode(), vector, keywords)))

    def element(self, row: VersionedRow, chunk_mac: bytes, place: bytes = b"") -> int:
        """A number of 256 bits for what the row says, whatever its seals look like: re-sealing does not change it."""
        message = chunk_mac[:VERSION_BYTES] + _instant(row.updated_at) + (place or place_of(row))
        return int.from_bytes(self._element(message), "big")

    def made(self, row: SealedChunk, chunk_mac: bytes) -> bool:
        """Whether this is the column that these keys make of the row."""
        if len(chunk_mac) != CHUNK_MAC_BYTES:
            return False
        version, emb_digest = chunk_mac[:VERSION_BYTES], emb_digest_of(chunk_mac)
        return hmac.compare_digest(chunk_mac[-MAC_BYTES:], self._chunk(_chunk_message(row, emb_digest, version)))


def new_version() -> bytes:
    """What no other row and no other state of a row has."""
    return os.urandom(VERSION_BYTES)


def emb_digest_of(chunk_mac: bytes) -> bytes:
    """The SHA-256 of the sealed embedding, as the column has it."""
    return chunk_mac[VERSION_BYTES:-MAC_BYTES]


def row_keys(user_hash: str) -> RowKeys:
    """The keys by which rows of this tenant are written. Raises KeyConfigurationError as subkeys do."""
    return RowKeys(*map(_hmac, row_subkeys(user_hash)))


def refuse_altered(
    user_hash: str, row: SealedChunk, chunk_mac: Any, emb_cipher: Any = None, key_id: Any = None
) -> RowKeys | None:
    """Raise RowAltered unless the row of memory_chunks is as it was written, MACMissing where it has no MAC; returns
    the keys that made its MAC.

    `emb_cipher`: where it was fetched. A row from before rows had MACs passes while MEMORY_ACCEPT_ROWS_WITHOUT_MAC says
    so. Raises KeyConfigurationError without the tenant's HMAC key.
    """
    if chunk_mac is None:
        if not settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC:
            raise _refused(MACMissing, user_hash, row.id, key_id)
        return None
    chunk_mac = bytes(chunk_mac)
    if emb_cipher is None or sha256(emb_cipher).digest() == emb_digest_of(chunk_mac):
        for keys in _keys_that_may_have_made(user_hash):
            if keys.made(row, chunk_mac):
                return keys
    raise _refused(RowAltered, user_hash, row.id, key_id)


def resealed_mac(keys: RowKeys, row: SealedChunk, chunk_mac: bytes, emb_cipher: bytes) -> bytes:
    """The column of a row that was sealed anew and says the same, so that it keeps its version."""
    return keys.chunk_mac(row, sha256(emb_cipher).digest(), chunk_mac[:VERSION_BYTES])


def _refused(error: type[IntegrityFailure], user_hash: str, row_id: UUID, key_id: str | None) -> IntegrityFailure:
    metrics.INTEGRITY_FAILURES.inc()
    metrics.ROWS_REFUSED.labels("missing" if error is MACMissing else "altered").inc()
    return error(model="memory_chunks", pk=(user_hash, row_id), key_id=key_id, column=COLUMN)


def _keys_that_may_have_made(user_hash: str) -> Iterable[RowKeys]:
    """Those of the hash's HMAC key, or of each key, where the hash does not say: the hash itself is of one of them."""
    if isinstance(user_hash, UserHash) and user_hash.hmac_key_id:
        return (row_keys(user_hash),)
    return (row_keys(UserHash(user_hash, key.key_id)) for key in get_keyring().hashing)


@lru_cache(maxsize=1024)
def _hmac(subkey: bytes) -> HMACSHA256:
    return HMACSHA256(subkey)


def _chunk_message(row: SealedChunk, emb_digest: bytes, version: bytes, place: bytes = b"") -> bytes:
    parts = [version, _instant(row.updated_at), place or place_of(row), emb_digest]
    for seal in (row.text_cipher, row.meta_cipher, row.context_cipher):
        parts += (_ABSENT,) if seal is None else (_LENGTH.pack(len(seal)), seal)
    return b"".join(parts)


def place_of(row: PlacedRow) -> bytes:
    """What both tables say of a row, as the MACs have it."""
    doc_id, source = row.doc_id.encode(), row.source.encode()
    return (
        _PLACE.pack(
            row.id.bytes,
            row.chunk_index,
            _instant(row.created_at),
            _instant(row.occurred_at),
            _instant(row.expires_at),
            len(doc_id),
            len(source),
        )
        + doc_id
        + source
    )


@lru_cache(maxsize=4096)  # the rows of a call share theirs
def _instant(moment: datetime | None) -> bytes:
    if moment is None:
        return _NEVER
    since = moment - _EPOCH
    return _INSTANT.pack(since.days, since.seconds, since.microseconds)
