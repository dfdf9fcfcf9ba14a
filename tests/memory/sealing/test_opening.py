"""Opening the seals of a row: what is counted, and what is said of a row that does not open."""

from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from keys.keyring import get_keyring
from memory import metrics
from memory.exceptions import IntegrityFailure, UnknownKeyId
from memory.sealing.codecs import JSONCodec, TextCodec
from memory.sealing.opening import SealedRow, open_seals
from memory.security import aad_for, seal
from tests.factories import key

USER = "ab" * 32
AAD = aad_for(USER)
text, obj = TextCodec(), JSONCodec()


def row(key_id: str | None = None) -> SealedRow:
    return SealedRow(USER, "memory_chunks", (USER, "a-row"), key_id or get_keyring().sealing.key_id)


def counted() -> tuple[float, float, float]:
    counters = (metrics.OPENS, metrics.KEY_ID_DRIFT, metrics.INTEGRITY_FAILURES)
    return tuple(counter._value.get() for counter in counters)  # type: ignore[return-value]


def change(before: tuple[float, ...]) -> list[float]:
    """Opens, drifted rows and failures since then."""
    return [now - then for now, then in zip(counted(), before, strict=True)]


def test_every_seal_is_decoded_in_order_and_counted() -> None:
    before = counted()
    opened = open_seals(row(), (seal(b"Apollo", AAD), text.decode), (None, text.decode), (seal(b"{}", AAD), obj.decode))
    assert opened == (["Apollo", None, {}], False)
    assert change(before) == [2, 0, 0]


def test_a_row_that_names_another_key_opens_and_drifts_once(settings: Any) -> None:
    before = counted()
    opened = open_seals(row("01234567"), (seal(b"a", AAD), text.decode), (seal(b"b", AAD), text.decode))
    assert opened == (["a", "b"], True)
    assert change(before) == [2, 1, 0]


def test_the_key_that_a_row_names_may_be_an_accepted_one(settings: Any) -> None:
    old, blob = get_keyring().sealing.key_id, seal(b"a", AAD)
    settings.MEMORY_ENCRYPTION_KEY, settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED = key(), [settings.MEMORY_ENCRYPTION_KEY]
    assert open_seals(row(old), (blob, text.decode)) == (["a"], False)


@pytest.mark.parametrize("blob", [b"", b"short", bytes(60), None], ids=["empty", "short", "zeros", "another user's"])
def test_what_does_not_open_is_named_and_counted_and_never_shown(blob: bytes | None) -> None:
    blob = seal(b"PLANTED", b"another user") if blob is None else blob
    before = counted()
    with pytest.raises(IntegrityFailure, match="a-row under key .* does not open") as caught:
        open_seals(row(), (seal(b"PLANTED", AAD), text.decode), (blob, text.decode))
    assert isinstance(caught.value, InvalidTag) and not isinstance(caught.value, UnknownKeyId)
    assert "PLANTED" not in str(caught.value) and USER not in str(caught.value)
    assert change(before) == [0, 0, 1]


def test_a_seal_of_another_column_does_not_open() -> None:
    with pytest.raises(IntegrityFailure, match="column's seal"):
        open_seals(row(), (seal(b"no object", AAD), obj.decode), column="meta_cipher")


def test_a_key_that_is_not_held_is_told_apart(settings: Any) -> None:
    blob, named = seal(b"a", AAD), row()
    settings.MEMORY_ENCRYPTION_KEY = key()
    with pytest.raises(UnknownKeyId, match="MEMORY_ENCRYPTION_KEYS_ACCEPTED"):
        open_seals(named, (blob, text.decode))
