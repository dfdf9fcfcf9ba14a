"""The digest of the set of a tenant's rows: a row that was deleted, replayed or rolled back is noticed.

A row's MAC tells that it was written as it is, not that it should still be there. So `tenants.row_set` holds a digest
of all the tenant's rows, which every write changes by the rows that it adds and removes:

    version (8 bytes) || count (8) || nonce (16) || hidden sum (32) || HMAC-SHA256 of all before (32)

It is MSet-Add-Hash (Clarke, Devadas, van Dijk, Gassend, Suh, "Incremental Multiset Hash Functions and Their Application
to Memory Integrity Checking", ASIACRYPT 2003): the sum, modulo 2^256, of a keyed pseudo-random function of each row
(`memory.sealing.row_macs.RowKeys.element`), and of one of a fresh nonce, by which the sum is hidden. Two different sets
have one digest only where 256-bit outputs of a function that nobody else can compute add up alike. Were the sum not
hidden, whoever watches it would learn the elements from its differences, and could look for rows that add up alike.

It changes under the lock of the tenant's row, in the transaction of the rows themselves. What a row counts for knows no
seal: re-sealing, which takes no such lock, changes nothing here.
"""

import hmac
import os
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from memory.exceptions import SealedMemoryError
from memory.sealing.row_macs import HMACSHA256, RowKeys, row_keys
from memory.sealing.subkeys import row_set_subkey

# What a row counts for is made of these columns of memory_chunks: none of them is a seal.
COUNTED_COLUMNS = "id, doc_id, source, chunk_index, created_at, updated_at, occurred_at, expires_at, chunk_mac"
MODULUS = 2**256

_FORM = struct.Struct(">QQ16s32s")
_MAC_BYTES = 32
_HIDE, _AUTHENTICATE = b"\x01", b"\x02"  # before what is hashed for which


class RowSetAltered(SealedMemoryError):
    """The digest of a tenant's set of rows is not one that was written for this tenant."""


class CountedRow(NamedTuple):
    """A row of memory_chunks by COUNTED_COLUMNS."""

    id: Any
    doc_id: str
    source: str
    chunk_index: int
    created_at: Any
    updated_at: Any
    occurred_at: Any
    expires_at: Any
    chunk_mac: bytes | None


@dataclass(frozen=True)
class RowSet:
    """How often the set was changed, how many rows are in it, and their sum."""

    version: int = 0
    count: int = 0
    total: int = field(default=0, repr=False)

    @classmethod
    def read(cls, user_hash: str, stored: bytes) -> Self:
        """From the column. Raises RowSetAltered."""
        function, stored = HMACSHA256(row_set_subkey(user_hash)), bytes(stored)
        if len(stored) != _FORM.size + _MAC_BYTES:
            raise RowSetAltered(RowSetAltered.__doc__)
        body, mac = stored[:-_MAC_BYTES], stored[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, function(_AUTHENTICATE + body)):
            raise RowSetAltered(RowSetAltered.__doc__)
        version, count, nonce, hidden = _FORM.unpack(body)
        return cls(version, count, (int.from_bytes(hidden, "big") - _pad(function, nonce)) % MODULUS)

    def as_stored(self, user_hash: str) -> bytes:
        """The column, under a fresh nonce."""
        function, nonce = HMACSHA256(row_set_subkey(user_hash)), os.urandom(16)
        hidden = ((self.total + _pad(function, nonce)) % MODULUS).to_bytes(32, "big")
        body = _FORM.pack(self.version, self.count, nonce, hidden)
        return body + function(_AUTHENTICATE + body)

    def holds(self, rows: "RowSetChange") -> bool:
        """Whether it is the set of these rows, each added once."""
        return (self.count, self.total) == (rows.count, rows.total % MODULUS)


class RowSetChange:
    """The rows that a transaction adds to a tenant's set and takes from it. `chunks`: how many more there are, with
    rows from before there were MACs, which are in no set."""

    def __init__(self, user_hash: str) -> None:
        self.user_hash = user_hash
        self.chunks = self.count = self.total = 0
        self.is_empty = True
        self._keys: RowKeys = row_keys(user_hash)

    def add_made(self, element: int) -> None:
        """Add a row whose element is known."""
        self._change(1, element)

    def add(self, row: Any) -> None:
        """Add a stored row, an object with COUNTED_COLUMNS."""
        self._change(1, self._element(row))

    def remove(self, row: Any) -> None:
        """Take away a row as it was stored."""
        self._change(-1, self._element(row))

    def removed(self, deleted: Iterable[tuple[Any, ...]], *, but: Collection[Any] = ()) -> list[CountedRow]:
        """Take away rows as `DELETE … RETURNING COUNTED_COLUMNS` gave them; returns them.

        `but`: ids of rows that were deleted for what somebody has altered. They stay in the sum, so that it is wrong.
        """
        rows = [CountedRow(*row) for row in deleted]
        for row in rows:
            self._change(-1, None if row.id in but else self._element(row))
        return rows

    def copy(self) -> "RowSetChange":
        """Another change, of the same rows so far."""
        same = RowSetChange(self.user_hash)
        same.also(self)
        return same

    def also(self, other: "RowSetChange") -> None:
        """Take another change of the same set in."""
        self.chunks, self.count, self.total = (
            self.chunks + other.chunks,
            self.count + other.count,
            self.total + other.total,
        )
        self.is_empty = self.is_empty and other.is_empty

    def applied_to(self, stored: bytes | None) -> bytes | None:
        """The column after this change. None stays None, and one that is not right stays as it is: a write is no reason
        to make it right, and `verify_integrity` names it."""
        if stored is None:
            return None
        try:
            before = RowSet.read(self.user_hash, stored)
        except RowSetAltered:
            return bytes(stored)
        # A count below zero: rows were taken away that were never added, by somebody who wrote them in.
        count = max(0, before.count + self.count)
        after = RowSet(before.version + 1, count, (before.total + self.total) % MODULUS)
        return after.as_stored(self.user_hash)

    def as_set(self) -> RowSet:
        """The set of these rows alone."""
        return RowSet(1, self.count, self.total % MODULUS)

    def _element(self, row: Any) -> int | None:
        return None if row.chunk_mac is None else self._keys.element(row, bytes(row.chunk_mac))

    def _change(self, by: int, element: int | None) -> None:
        self.is_empty = False
        self.chunks += by
        if element is not None:
            self.count += by
            self.total += by * element


def empty(user_hash: str) -> bytes:
    """The column of a tenant without rows."""
    return RowSet().as_stored(user_hash)


def _pad(function: HMACSHA256, nonce: bytes) -> int:
    return int.from_bytes(function(_HIDE + nonce), "big")
