"""Does everything that is stored still open, and does the index still say what the seals say?

Tenant by tenant inside its door: the user id, every row's three seals, the vector in the index against the sealed
original, the columns that the index repeats, the chunk count. Across tenants, by the census: rows under a hash that is
no tenant's, tenants under an HMAC key that is not held here, users known twice.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np

from keys.exceptions import KeyConfigurationError
from keys.keyring import get_keyring
from keys.models import Purpose
from keys.retry_while_away import retry_while_away
from keys.runs import open_run
from memory.exceptions import IntegrityFailure, UnknownKeyId
from memory.index.recipe import Recipe, recorded
from memory.index.vectors import original_from, searchable
from memory.rls import tenant_transaction_by_hash
from memory.rotation.user_ids import TenantFacts, UserIdUnreadable, tenant_facts
from memory.sealing.codecs import JSONCodec, TextCodec
from memory.sealing.opening import SealedRow, open_seals
from memory.security import UserHash, user_hashes
from memory.tenancy import census
from memory.tenancy.cursors import binary_cursor

# Cosines move by less than this. Turning a unit vector in float32 is exact to about 1e-6.
TOLERANCE = 1e-4
ROWS_A_READ = 500

UNREADABLE, UNKNOWN_KEY, VECTOR, COLUMNS = "unreadable", "unknown key", "vector", "columns"
COUNT, USER_ID, ORPHANS, KNOWN_TWICE = "count", "user id", "orphans", "known twice"

ROWS = """
SELECT c.id, c.text_cipher, c.meta_cipher, c.emb_cipher, c.enc_key_id, v.embedding,
       (v.doc_id, v.source, v.chunk_index, v.created_at) = (c.doc_id, c.source, c.chunk_index, c.created_at)
FROM memory_chunks c LEFT JOIN memory_vectors v ON v.user_hash = c.user_hash AND v.id = c.id
WHERE c.user_hash = %(user_hash)s AND c.id > %(after)s AND (%(sample)s::float8 >= 1 OR random() < %(sample)s::float8)
ORDER BY c.id LIMIT %(limit)s
"""
COUNTS = """
SELECT chunk_count, (SELECT count(*) FROM memory_chunks WHERE user_hash = %(user_hash)s)
FROM tenants WHERE user_hash = %(user_hash)s
"""

_text, _json = TextCodec(), JSONCodec()


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. `tenant` is the first 8 hex of the hash; nothing here is content."""

    kind: str
    tenant: str
    row: str
    key_id: str
    detail: str

    def __str__(self) -> str:
        where = f"tenant {self.tenant}" + (f", row {self.row}" if self.row else "")
        return f"{self.kind}: {where} (key {self.key_id or '–'}): {self.detail}"


@dataclass
class Inspection:
    """What was looked at and what was found. `drifted` rows open under another key than the one they name."""

    tenants: int = 0
    rows: int = 0
    drifted: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: "Inspection") -> None:
        """Take another inspection's figures and findings in."""
        self.tenants += other.tenants
        self.rows += other.rows
        self.drifted += other.drifted
        self.findings += other.findings


@dataclass(frozen=True)
class _Row:
    id: UUID
    blobs: tuple[bytes, bytes, bytes]
    key_id: str
    embedding: Any
    columns_agree: bool | None


def inspect_all(*, sample: float = 1.0, advance: Callable[[int], Any] = lambda rows: None) -> Inspection:
    """Look at every tenant, and at what belongs to none. A tenant that a rotation moves meanwhile may be met twice."""
    seen = Inspection()
    for tenant in census.all_tenants():
        seen.add(inspect_tenant(tenant, sample=sample, advance=advance))
        seen.findings += _known_twice(tenant)
    # Half a move is no damage: its rows become somebody's, or are cleared, when the rotation is run again.
    if open_run(Purpose.HMAC) is None:
        seen.findings += orphan_findings(retry_while_away(census.orphan_hashes))
    return seen


def inspect_tenant(
    tenant: UserHash, *, sample: float = 1.0, advance: Callable[[int], Any] = lambda rows: None
) -> Inspection:
    """Look at one tenant; `sample` is the share of its rows to open, 0 to 1. A tenant that is gone by now is nothing.

    `advance` is told how many rows were looked at, read by read.
    """
    seen = Inspection()
    facts = tenant_facts(tenant)
    if facts is None:
        return seen
    seen.tenants = 1
    seen.findings += _inspect_user_id(facts)
    seen.findings += retry_while_away(_inspect_count, tenant)
    after = UUID(int=0)
    while rows := retry_while_away(_read, tenant, after, sample):
        _inspect_rows(seen, tenant, rows, recorded(facts.recipe))
        advance(len(rows))
        after = rows[-1].id
    return seen


def _known_twice(tenant: UserHash) -> Iterator[Finding]:
    """Whether the user of a tenant under an accepted key has a tenant under another key as well."""
    facts = tenant_facts(tenant)
    if facts is None or tenant.hmac_key_id == get_keyring().hmac_current.key_id:
        return
    try:
        hashes = user_hashes(facts.open_user_id())
    except UserIdUnreadable:
        return
    if len(retry_while_away(census.known_hashes, hashes)) > 1:
        detail = "its user is known under another key as well: some process did not accept both keys"
        yield Finding(KNOWN_TWICE, tenant[:8], "", tenant.hmac_key_id, detail)


def orphan_findings(hashes: Sequence[str]) -> Iterator[Finding]:
    """One finding for each hash that chunks carry and no tenant has."""
    for user_hash in hashes:
        yield Finding(ORPHANS, user_hash[:8], "", "", "rows of a hash that is no tenant's")


def _inspect_user_id(facts: TenantFacts) -> Iterator[Finding]:
    try:
        facts.open_user_id()
    except UserIdUnreadable as error:
        yield Finding(USER_ID, facts.user_hash[:8], "", facts.enc_key_id, str(error))


def _inspect_count(user_hash: UserHash) -> list[Finding]:
    # Both in one statement, so that a write in between is no difference.
    with tenant_transaction_by_hash(user_hash), binary_cursor() as cursor:
        cursor.execute(COUNTS, {"user_hash": user_hash})
        counted, in_truth = cursor.fetchone() or (0, 0)
    if counted == in_truth:
        return []
    return [Finding(COUNT, user_hash[:8], "", "", f"{counted} chunks by its count, {in_truth} in truth")]


def _read(user_hash: UserHash, after: UUID, sample: float) -> list[_Row]:
    with tenant_transaction_by_hash(user_hash), binary_cursor() as cursor:
        cursor.execute(ROWS, {"user_hash": user_hash, "after": after, "sample": sample, "limit": ROWS_A_READ})
        return [
            _Row(row_id, (text, meta, original), key_id, embedding, agree)
            for row_id, text, meta, original, key_id, embedding, agree in cursor.fetchall()
        ]


def _inspect_rows(seen: Inspection, user_hash: UserHash, rows: Sequence[_Row], recipe: Recipe) -> None:
    originals: list[np.ndarray] = []
    opened: list[_Row] = []
    for row in rows:
        seen.rows += 1
        try:
            originals.append(_open(seen, user_hash, row))
            opened.append(row)
        except IntegrityFailure as failure:
            seen.findings.append(_unreadable(user_hash, row, failure))
        if row.embedding is None or row.columns_agree is False:
            detail = "it has no vector" if row.embedding is None else "the index repeats its columns wrongly"
            seen.findings.append(Finding(COLUMNS, user_hash[:8], str(row.id), row.key_id, detail))
    seen.findings += _inspect_vectors(user_hash, opened, originals, recipe)


def _open(seen: Inspection, user_hash: UserHash, row: _Row) -> np.ndarray:
    sealed = SealedRow(user_hash, "memory_chunks", (user_hash, row.id), row.key_id)
    opened = open_seals(sealed, *zip(row.blobs, (_text.decode, _json.decode, original_from), strict=True))
    seen.drifted += opened.drifted
    original: np.ndarray = opened.values[-1]
    return original


def _unreadable(user_hash: UserHash, row: _Row, failure: IntegrityFailure) -> Finding:
    kind = UNKNOWN_KEY if isinstance(failure, UnknownKeyId) else UNREADABLE
    return Finding(kind, user_hash[:8], str(row.id), row.key_id, failure.reason)


def _inspect_vectors(
    user_hash: UserHash, rows: Sequence[_Row], originals: Sequence[np.ndarray], recipe: Recipe
) -> Iterator[Finding]:
    pairs = [(row, original) for row, original in zip(rows, originals, strict=True) if row.embedding is not None]
    if not pairs or not _holds(user_hash.hmac_key_id):
        return
    wanted = searchable(np.stack([original for _, original in pairs]), user_hash, recipe)
    stored = np.stack([row.embedding.to_numpy() for row, _ in pairs])
    distances = np.abs(wanted - stored).max(axis=1)
    for (row, _), distance in zip(pairs, distances, strict=True):
        if not distance <= TOLERANCE:
            detail = f"the vector in the index is not its sealed original's (off by {distance:.2g})"
            yield Finding(VECTOR, user_hash[:8], str(row.id), row.key_id, detail)


def _holds(hmac_key_id: str) -> bool:
    """Whether this process has the HMAC key; without it the tenant's vectors cannot be compared."""
    try:
        get_keyring().hashing_key(hmac_key_id)
    except KeyConfigurationError:
        return False
    return True
