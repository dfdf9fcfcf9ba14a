"""`Mover`: what `keys.rotation` needs to know of the rows that it moves from one key to another.

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
        """Tenants with such rows, where one row of a tenant names its key."""
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
    """What the record of a run calls the pass that moves."""
    rows_name_tenants: bool
    """A process without both keys would not find its tenants: it stops a rotation as long as that goes on."""

    def key_counts(self) -> list[KeyCount]:
        """Rows by table and key id."""
        ...

    def not_among(self, key_ids: Collection[str]) -> list[str]:
        """The other key ids that rows name. Asked whenever serving starts, so it reads no more than it must."""
        ...

    def tenants(self, *, after: str) -> Iterator[str]:
        """Every tenant behind `after`, in the order of the hashes."""
        ...

    def tenants_to_move(self, key_id: str, *, after: str, again: bool) -> Iterator[str]:
        """Those of them with rows that name another key; unless `again`, others too where that is cheaper."""
        ...

    def prepare(self, progress: Progress) -> str:
        """Look at everything before anything moves; returns why nothing must, or nothing."""
        ...

    def move(self, tenant: Any, progress: Progress, *, wait: bool) -> None:
        """Move a tenant's rows. What a writer has locked may be left for later, but with `wait` is waited for."""
        ...

    def clean_up(self, progress: Progress) -> None:
        """Take away what killed runs left behind, when all has moved."""
        ...

    def verify(self, tenant: Any, progress: Progress) -> None:
        """Open every row of a tenant under the current key alone."""
        ...

    def say_failed(self, failures: int, left: Plan) -> str:
        """What a run says in the end when rows could not be moved or verified."""
        ...

    def say_done(self, key_id: str) -> str:
        """What a run says in the end when everything is under this key."""
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
