"""Domain errors of the memory. Only the exception handler (`project.errors`) turns them into HTTP."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from cryptography.exceptions import InvalidTag

SAFE_NAME_LENGTH = 40


def safe_name(name: str) -> str:
    """A caller's field name if it looks like one; anything else could be content, and no error repeats it."""
    plain = name.isascii() and name.isidentifier() and len(name) <= SAFE_NAME_LENGTH
    return name if plain else "(unnamed)"


class SealedMemoryError(Exception):
    """Base of the memory's own errors. A message never holds text, a user id, a token or a key."""


class InvalidUserId(SealedMemoryError, ValueError):
    """A user id is a string of 1 to 255 bytes of UTF-8 without NUL."""


class InvalidDocument(SealedMemoryError, ValueError):
    """A document that cannot be stored. `field` names the part at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class DocumentTooLarge(InvalidDocument):
    """A document, or a set of them, is larger than a request may be. `field` names the part at fault."""


class InvalidJSON(SealedMemoryError, ValueError):
    """Bytes that are not JSON by RFC 8259. The message says where the error is, and quotes none of the bytes."""


class InvalidFilter(InvalidDocument):
    """A filter that cannot be applied. `field` names it."""


class TenantNotBound(SealedMemoryError):
    """No user is bound: wrap the work in `bind_tenant(user_id)` or pass the user id."""


class OutsideTenantTransaction(SealedMemoryError):
    """Tenant rows are reached only inside `tenant_transaction()`, or in a request of a known user."""


class SecondTenant(SealedMemoryError):
    """A second tenant on one connection: leave the first `tenant_transaction()` before entering another."""


class DoorOutOfOrder(SealedMemoryError):
    """Doors of one connection are left innermost first, and entered by nobody but the task or thread inside them."""


class NotSealed(SealedMemoryError, TypeError):
    """A sealed column was given something that is not sealed."""


class IntegrityFailure(SealedMemoryError, InvalidTag):
    """A seal did not open: wrong user, wrong key or changed bytes. The message names the row, never its content."""

    reason = "does not open: changed bytes, or another tenant's or column's seal"

    def __init__(self, *, model: str, pk: Any, key_id: str | None, column: str = "") -> None:
        super().__init__(model, pk, key_id, column)
        self.model, self.pk, self.key_id, self.column = model, pk, key_id, column

    def __str__(self) -> str:
        return f"{self.column or 'a seal'} of {self.model} {_short(self.pk)} under key {self.key_id} {self.reason}."


class UnknownKeyId(IntegrityFailure):
    """The row names a key this process does not hold: put the key back into MEMORY_ENCRYPTION_KEYS_ACCEPTED."""

    reason = (
        "does not open, because this process does not hold that key. Put it into MEMORY_ENCRYPTION_KEYS_ACCEPTED; the"
        " row is intact"
    )


class RowAltered(IntegrityFailure):
    """The row's MAC is not of this row: a cell was edited, swapped, or copied from elsewhere."""

    reason = "does not match: a cell of the row was changed, or is another row's"


class MACMissing(IntegrityFailure):
    """The row has no MAC, and rows without one are not accepted (any more)."""

    reason = "is missing. Rows from before there were MACs get them from `manage.py complete_row_macs`"


class ChunkNotFound(SealedMemoryError):
    """No such chunk for this user. Another user's chunk is answered the same way."""


class ChangedMeanwhile(SealedMemoryError):
    """Others kept changing this memory while the new text was embedded. Try again."""


class NotServed(SealedMemoryError):
    """An address of another service's API that ours knows and does not serve. The message says what to do instead."""


class OperationNotFound(SealedMemoryError):
    """No such operation for this user. Another user's is answered the same way."""


class TooManyOperations(SealedMemoryError):
    """This user has as many unfinished operations as a user may have. Wait for one of them."""


class QueueFull(SealedMemoryError):
    """All users together have as many unfinished operations as the service takes."""


class TooManyExports(SealedMemoryError):
    """This process makes as many exports as MEMORY_EXPORT_CONCURRENT allows. Try again later."""


class ExportBrokenOff(SealedMemoryError):
    """The database ended an export in the middle, or the export took longer than MEMORY_EXPORT_SECONDS."""


class DatabaseMisconfigured(SealedMemoryError):
    """The live database does not protect tenants as it must. `problems` says how, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class NoEmbedding(StrEnum):
    """Why a text was not embedded. The values are part of the API."""

    TIMEOUT = "embedding_timeout"
    LOADING = "embedding_loading"
    UNAVAILABLE = "embedding_unavailable"
    BREAKER_OPEN = "embedding_breaker_open"
    QUEUE_FULL = "embedding_queue_full"
    ERROR = "embedding_error"


class EmbeddingModelUnavailable(SealedMemoryError):
    """The embedding model is missing, is not the one it should be, or gave no vector; `reason` says which."""

    def __init__(self, message: str, reason: NoEmbedding = NoEmbedding.UNAVAILABLE) -> None:
        super().__init__(message)
        self.reason = reason


def _short(pk: Any) -> str:
    """A composite key without the tenant's whole hash: its first 8 hex, as logs show it."""
    if isinstance(pk, tuple):
        return "/".join([str(pk[0])[:8], *map(str, pk[1:])])
    return str(pk)[:36]


class IdempotencyKeyReused(SealedMemoryError):
    """This Idempotency-Key came with another request before: every request needs a key of its own."""


class RequestInFlight(SealedMemoryError):
    """A request with this Idempotency-Key is being carried out. `seconds`: until it is taken for lost."""

    def __init__(self, seconds: float) -> None:
        super().__init__(RequestInFlight.__doc__)
        self.seconds = seconds
