"""`Mover`: the interface by which `keys.rotation` moves rows from one key to another.

The application that owns rows registers a mover for each purpose of a key. Everything in `keys` speaks of tenants by
their hash and of rows by their id, and sees neither a plaintext nor a model.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from keys.models import Purpose
from keys.runs import Progress


@dataclass(frozen=True)
class KeyCount:
    """How many rows of a table name a key id, and how many tenants they belong to.

    `writes`: how many rows are written when they move to another key, which is what a rotation's progress counts.
    """

    table: str
    key_id: str
    rows: int
    tenants: int
    writes: int


@dataclass(frozen=True)
class Plan:
    """What a rotation to a key would do."""

    to_key_id: str
    counts: list[KeyCount]

    @property
    def from_key_ids(self) -> list[str]:
        """The other keys that rows name."""
        return sorted({count.key_id for count in self.counts} - {self.to_key_id})

    @property
    def rows_left(self) -> int:
        """Rows that name another key."""
        return sum(count.rows for count in self._left)

    @property
    def tenants_left(self) -> int:
        """Tenants with such rows. Exact where one row of each tenant names its key; else some count twice."""
        return sum(count.tenants for count in self._left)

    @property
    def to_do(self) -> int:
        """Rows to write."""
        return sum(count.writes for count in self._left)

    @property
    def total(self) -> int:
        """Rows to write if all were under another key."""
        return sum(count.writes for count in self.counts)

    @property
    def _left(self) -> list[KeyCount]:
        return [count for count in self.counts if count.key_id != self.to_key_id]


class Mover(Protocol):
    """Moves the rows of one tenant after another to the current key of a purpose, and verifies them.

    Each call is one or many transactions of its own, reports to `progress` between them, and may be repeated. A
    `tenant` is a hash, as `tenants` or `tenants_to_move` gave it.
    """

    purpose: Purpose
    phase: str
    """The name of the moving pass in the record of a run."""
    rows_name_tenants: bool
    """Whether the key makes a tenant's hash: then a live process that lacks the old or the new key stops a rotation."""

    def key_counts(self) -> list[KeyCount]:
        """Rows by table and key id."""
        ...

    def not_among(self, key_ids: Collection[str]) -> list[str]:
        """The key ids that rows name and `key_ids` lacks. Asked whenever serving starts, so it should read little."""
        ...

    def tenants(self, *, after: str) -> Iterator[str]:
        """Every tenant whose hash comes after `after`, in the order of the hashes."""
        ...

    def tenants_to_move(self, key_id: str, *, after: str, again: bool) -> Iterator[str]:
        """Those of `tenants` with rows that name another key than `key_id`. The first pass (`again` is false) may name
        others too, where that is cheaper."""
        ...

    def prepare(self, progress: Progress) -> str:
        """Check everything before anything moves. Returns the reason not to start, or an empty string."""
        ...

    def move(self, tenant: Any, progress: Progress, *, wait: bool) -> None:
        """Move a tenant's rows. Rows that a writer has locked may be left for later; with `wait`, wait for them."""
        ...

    def clean_up(self, progress: Progress) -> None:
        """Delete what killed runs left behind, once every row has moved."""
        ...

    def verify(self, tenant: Any, progress: Progress) -> None:
        """Open every row of a tenant under the current key alone."""
        ...

    def say_failed(self, failures: int, left: Plan) -> str:
        """The final message of a run when rows could not be moved or verified."""
        ...

    def say_done(self, key_id: str) -> str:
        """The final message of a run when every row is under this key."""
        ...


_registered: dict[Purpose, Mover] = {}


def register(*movers: Mover) -> None:
    """Make each of these the mover of its purpose."""
    _registered.update({mover.purpose: mover for mover in movers})


def movers() -> list[Mover]:
    """The registered movers."""
    return list(_registered.values())


def mover_of(purpose: Purpose) -> Mover:
    """The registered mover of a purpose. Raises LookupError when no application registered one."""
    if purpose not in _registered:
        raise LookupError(f"No application registered a mover for the {purpose.label} key with keys.movers.register().")
    return _registered[purpose]
