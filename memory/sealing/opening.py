"""Opens the seals of one row: counts what opened and what drifted, and says what did not open.

The one place that counts opens, drift and integrity failures, and that tells changed bytes from a key that is not held.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag

from keys.keyring import Key, get_keyring
from memory import metrics
from memory.exceptions import IntegrityFailure, UnknownKeyId
from memory.security import aad_for, open_under, open_with_key

Decode = Callable[[bytes], Any]


class SealedRow(NamedTuple):
    """A row as its seals name it: whose it is, and what an error may say of it. `key_id` is the row's `enc_key_id`."""

    user_hash: str
    model: str
    pk: Any
    key_id: str | None


class Opened(NamedTuple):
    """The values of a row's seals in order. `drifted`: they are under another key than the one that the row names."""

    values: list[Any]
    drifted: bool


def open_seals(row: SealedRow, *seals: tuple[bytes | None, Decode], column: str = "") -> Opened:
    """Open and decode seals of one row, each with its own `decode`, which raises InvalidTag; None stays None.

    Raises IntegrityFailure when one does not open or holds something else than it should, UnknownKeyId when the key
    that the row names is not held here. `column` is what the error names.
    """
    aad, named = aad_for(row.user_hash), _named_key(row.key_id)
    used: set[str] = set()
    try:
        values = [None if blob is None else decode(_open(blob, aad, named, used)) for blob, decode in seals]
    except InvalidTag:
        raise _failure(row, column) from None
    metrics.OPENS.inc(sum(blob is not None for blob, _ in seals))
    drifted = bool(row.key_id) and bool(used - {row.key_id})
    if drifted:
        metrics.KEY_ID_DRIFT.inc()
    return Opened(values, drifted)


def _named_key(key_id: str | None) -> Key | None:
    return next((key for key in get_keyring().opening if key.key_id == key_id), None)


def _open(blob: bytes, aad: bytes, named: Key | None, used: set[str]) -> bytes:
    """Open with the key that the row names, which is nearly always the right one, then with any other."""
    if named is not None:
        try:
            data = open_under(named, blob, aad)
        except InvalidTag:
            pass
        else:
            used.add(named.key_id)
            return data
    data, key = open_with_key(blob, aad)
    used.add(key.key_id)
    return data


def _failure(row: SealedRow, column: str) -> IntegrityFailure:
    metrics.INTEGRITY_FAILURES.inc()
    unknown = bool(row.key_id) and not get_keyring().opens(str(row.key_id))
    return (UnknownKeyId if unknown else IntegrityFailure)(model=row.model, pk=row.pk, key_id=row.key_id, column=column)
