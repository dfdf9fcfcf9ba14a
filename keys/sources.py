"""What a rotation needs to know of the rows it rotates, without knowing them.

The application that owns sealed rows registers one source; everything in `keys` speaks of tenants by their hash and of
rows by their id, and sees neither a plaintext nor a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from keys.runs import FailedRow


@dataclass(frozen=True)
class KeyCount:
    """How many rows of a table name a key id, and how many tenants they belong to."""

    table: str
    key_id: str
    rows: int
    tenants: int


@dataclass(frozen=True)
class Batch:
    """What became of some rows of one tenant, in the order of their ids.

    `done` rows were re-sealed (or verified). `last` is the id to go on behind, None when the table ends here.
    `strays` are ids of rows that do not open under the sealing key alone, `failures` those that open under no key.
    """

    done: int
    last: str | None
    strays: tuple[str, ...] = ()
    failures: tuple[FailedRow, ...] = ()


class SealedSource(Protocol):
    """Rows under seal, tenant by tenant. Every method is a transaction of its own and may be repeated."""

    def tables(self) -> Sequence[str]:
        """The tables with sealed columns."""
        ...

    def tenants(self, *, after: str, limit: int) -> list[str]:
        """Hashes of tenants in order, behind `after`."""
        ...

    def tenants_not_under(self, key_id: str, *, after: str, limit: int) -> list[str]:
        """Hashes of tenants with rows that name another key, in order, behind `after`."""
        ...

    def key_counts(self) -> list[KeyCount]:
        """Rows and tenants by table and encryption key id."""
        ...

    def hmac_key_counts(self) -> dict[str, int]:
        """Tenants by HMAC key id."""
        ...

    def any_row_under(self, key_ids: Sequence[str]) -> list[str]:
        """Which of these encryption key ids some row names."""
        ...

    def reseal(self, tenant: str, table: str, *, after: str | None, limit: int, wait: bool) -> Batch:
        """Re-seal up to `limit` rows that name another key than the sealing one. Rows that a writer has locked are
        skipped, or with `wait` waited for."""
        ...

    def reseal_rows(self, tenant: str, table: str, rows: Sequence[str]) -> Batch:
        """Re-seal these rows, whatever key they name."""
        ...

    def verify(self, tenant: str, table: str, *, after: str | None, limit: int) -> Batch:
        """Open up to `limit` rows under the sealing key alone."""
        ...


_registered: list[SealedSource] = []


def register(source: SealedSource) -> None:
    """Make `source` the one that is rotated and counted."""
    _registered[:] = [source]


def source() -> SealedSource:
    """The registered source. Raises LookupError when no application registered one."""
    if not _registered:
        raise LookupError("No application registered its sealed rows with keys.sources.register().")
    return _registered[0]
