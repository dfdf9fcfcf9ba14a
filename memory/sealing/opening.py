"""Opens the seals of one row, and raises IntegrityFailure when one does not open.

The one place that counts opens, drift (a seal under another key than its row names) and integrity failures. It
distinguishes changed bytes from a key that this process does not hold.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag

from keys.keyring import Key, get_keyring
from memory import metrics
from memory.exceptions import IntegrityFailure, UnknownKeyId
from memory.security import aad_for, open_under, open_with_key

Decode = Callable[[bytes], Any]


class SealedRow(NamedTuple):
    """A row with seals: its tenant, and what an error may say about it. `key_id` is the row's `enc_key_id`."""

    user_hash: str
    model: str
    pk: Any
    key_id: str | None


class Opened(NamedTuple):
    """The values of a row's seals in order. `drifted`: one was under another key than the row names."""

    values: list[Any]
    drifted: bool


def open_seals(
    row: SealedRow, *seals: tuple[bytes | None, Decode], column: str = "", count: Callable[[int], object] | None = None
) -> Opened:
    """Open and decode seals of one row, each with its own `decode`, which raises InvalidTag; None stays None.

    Raises IntegrityFailure when one does not open or decode; its subclass UnknownKeyId when this process lacks the key
    that the row names. `column` is the column that the error names. `count` is called with the number of
    opened seals in place of the metric (see `opens_counted_together`).
    """
    aad, named, drifted = aad_for(row.user_hash), _named_key(row.key_id), False
    values: list[Any] = []
    opened = 0
    try:
        for blob, decode in seals:
            if blob is None:
                values.append(None)
                continue
            data, by_name = _open(blob, aad, named)
            drifted |= not by_name
            opened += 1
            values.append(decode(data))
    except InvalidTag:
        raise _failure(row, column) from None
    (count or metrics.OPENS.inc)(opened)
    drifted = drifted and bool(row.key_id)
    if drifted:
        metrics.KEY_ID_DRIFT.inc()
    return Opened(values, drifted)


@contextmanager
def opens_counted_together() -> Iterator[Callable[[int], object]]:
    """Yields a `count` for `open_seals` that adds up the seals of many rows, and raises the metric once, at the end.

    Raising the metric takes about as long as opening a short seal.
    """
    counts: list[int] = []
    try:
        yield counts.append
    finally:
        metrics.OPENS.inc(sum(counts))


def _named_key(key_id: str | None) -> Key | None:
    keyring = get_keyring()
    if key_id == keyring.sealing.key_id:
        return keyring.sealing
    return next((key for key in keyring.accepted if key.key_id == key_id), None)


def _open(blob: bytes, aad: bytes, named: Key | None) -> tuple[bytes, bool]:
    """Open with the key that the row names, which is nearly always the right one, then with any other; and say whether
    it was the named one."""
    if named is not None:
        try:
            return open_under(named, blob, aad), True
        except InvalidTag:
            pass
    return open_with_key(blob, aad)[0], False


def _failure(row: SealedRow, column: str) -> IntegrityFailure:
    metrics.INTEGRITY_FAILURES.inc()
    unknown = bool(row.key_id) and not get_keyring().opens(str(row.key_id))
    return (UnknownKeyId if unknown else IntegrityFailure)(model=row.model, pk=row.pk, key_id=row.key_id, column=column)
