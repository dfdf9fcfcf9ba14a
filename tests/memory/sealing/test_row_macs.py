"""What a row's MAC covers, and that nothing else has the same."""

import hmac
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pgvector import SparseVector

from memory.exceptions import MACMissing, RowAltered
from memory.sealing.row_macs import HMACSHA256, new_version, refuse_altered, row_keys
from memory.security import UserHash, user_hashes
from tests.factories import ALICE, BOB

NOW = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    id: UUID = UUID(int=7)
    doc_id: str = "diary"
    source: str = "chat"
    chunk_index: int = 3
    created_at: datetime = NOW
    updated_at: datetime = NOW
    occurred_at: datetime | None = None
    expires_at: datetime | None = None
    text_cipher: bytes = b"t" * 40
    meta_cipher: bytes = b"m" * 40
    context_cipher: bytes | None = None


EMBEDDING = b"e" * 100
OTHERS: dict[str, Any] = {
    "id": UUID(int=8),
    "doc_id": "diarx",
    "source": "chas",
    "chunk_index": 2,
    "created_at": NOW + timedelta(microseconds=1),
    "updated_at": NOW - timedelta(microseconds=1),
    "occurred_at": NOW,
    "expires_at": NOW,
    "text_cipher": b"t" * 39 + b"u",
    "meta_cipher": b"m" * 41,
    "context_cipher": b"c" * 30,
}


def alice() -> UserHash:
    return user_hashes(ALICE)[0]


def written(row: Row) -> bytes:
    return row_keys(alice()).chunk_mac(row, sha256(EMBEDDING).digest(), new_version())


@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 1000])
def test_it_is_hmac_sha256(length: int) -> None:
    key, message = os.urandom(32), os.urandom(length)
    assert HMACSHA256(key)(message) == hmac.digest(key, message, "sha256")


@pytest.mark.parametrize("column", OTHERS)
def test_every_column_is_covered(column: str) -> None:
    row = Row()
    mac = written(row)
    refuse_altered(alice(), row, mac, EMBEDDING)
    with pytest.raises(RowAltered):
        refuse_altered(alice(), replace(row, **{column: OTHERS[column]}), mac, EMBEDDING)


def test_columns_that_trade_bytes_make_another_message() -> None:
    mac = written(Row())
    for row in (Row(doc_id="diaryc", source="hat"), Row(text_cipher=b"m" * 40, meta_cipher=b"t" * 40)):
        with pytest.raises(RowAltered):
            refuse_altered(alice(), row, mac)


@pytest.mark.parametrize("byte", [0, 15, 16, 47, 48, 79])
def test_every_part_of_the_column_is_covered(byte: int) -> None:
    mac = bytearray(written(Row()))
    mac[byte] ^= 1
    with pytest.raises(RowAltered):
        refuse_altered(alice(), Row(), bytes(mac))


@pytest.mark.parametrize("mac", [b"", b"x", b"x" * 79, b"x" * 80, b"x" * 81])
def test_what_is_no_mac(mac: bytes) -> None:
    with pytest.raises(RowAltered):
        refuse_altered(alice(), Row(), mac)


def test_another_embedding_is_refused_where_it_was_fetched() -> None:
    mac = written(Row())
    refuse_altered(alice(), Row(), mac)
    with pytest.raises(RowAltered):
        refuse_altered(alice(), Row(), mac, b"f" * 100)


def test_another_users_row_is_refused() -> None:
    with pytest.raises(RowAltered):
        refuse_altered(user_hashes(BOB)[0], Row(), written(Row()))


def test_a_hash_that_does_not_name_its_key_is_tried_under_every_one() -> None:
    refuse_altered(str(alice()), Row(), written(Row()))


def test_the_same_moment_in_another_zone_is_the_same() -> None:
    there = Row(occurred_at=NOW.astimezone(timezone(timedelta(hours=5, minutes=45))))
    refuse_altered(alice(), Row(occurred_at=NOW), written(there))


def test_without_a_mac(settings: Any) -> None:
    with pytest.raises(MACMissing):
        refuse_altered(alice(), Row(), None)
    settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC = True
    assert refuse_altered(alice(), Row(), None) is None


def test_no_error_shows_more_than_the_row(settings: Any) -> None:
    with pytest.raises(RowAltered) as caught:
        refuse_altered(alice(), Row(), b"")
    said = f"{caught.value} {caught.value!r}"
    assert "diary" not in said
    assert str(alice()) not in str(caught.value)


@given(st.binary(max_size=40), st.binary(max_size=40), st.text(max_size=10), st.text(max_size=10))
def test_no_two_rows_make_one_message(text: bytes, meta: bytes, doc_id: str, source: str) -> None:
    row = Row(text_cipher=text, meta_cipher=meta, doc_id=doc_id, source=source)
    mac = written(row)
    refuse_altered(alice(), row, mac)
    with pytest.raises(RowAltered):
        refuse_altered(alice(), replace(row, text_cipher=text + meta[:1], meta_cipher=meta[1:] + b"x"), mac)


INDEXED: dict[str, Any] = {
    "embedding": np.array([1, 2, 4], dtype=np.float32),
    "lexical": SparseVector({1: 0.5}, 9),
    "labels": "{1,3}",
    "recipe_id": 8,
}


@pytest.mark.parametrize("column", [*INDEXED, "id", "doc_id", "source", "chunk_index", "occurred_at", "expires_at"])
def test_everything_in_the_index_is_covered(column: str) -> None:
    given: dict[str, Any] = {
        "embedding": np.array([1, 2, 3], dtype=np.float32),
        "lexical": None,
        "labels": "{1,2}",
        "recipe_id": 7,
    }
    keys = row_keys(alice())
    mac = keys.vector_mac(Row(), **given)
    assert mac == keys.vector_mac(Row(), **given)
    if column in INDEXED:
        assert mac != keys.vector_mac(Row(), **{**given, column: INDEXED[column]})
    else:
        assert mac != keys.vector_mac(replace(Row(), **{column: OTHERS[column]}), **given)


def test_an_element_knows_no_seal_and_all_else() -> None:
    keys, mac = row_keys(alice()), written(Row())
    element = keys.element(Row(), mac)
    for column, value in OTHERS.items():
        same = keys.element(replace(Row(), **{column: value}), mac) == element
        assert same == column.endswith("_cipher"), column
    assert keys.element(Row(), written(Row())) != element  # another version
