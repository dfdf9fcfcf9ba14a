"""The multiset hash of rows: hidden, authenticated, and the same whatever the order of changes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.security import user_hashes
from memory.tenancy.row_set import MODULUS, RowSet, RowSetAltered, RowSetChange, empty
from tests.factories import ALICE, BOB


def test_the_column_hides_the_sum() -> None:
    user_hash = user_hashes(ALICE)[0]
    one = RowSet(3, 2, 12345)
    assert one.as_stored(user_hash) != one.as_stored(user_hash)
    assert RowSet.read(user_hash, one.as_stored(user_hash)) == one
    assert "12345" not in repr(one)
    with pytest.raises(RowSetAltered):
        RowSet.read(user_hashes(BOB)[0], one.as_stored(user_hash))


@given(st.lists(st.integers(0, MODULUS - 1), max_size=20), st.randoms())
def test_the_order_of_changes_does_not_matter(elements: list[int], random: Any) -> None:
    user_hash = user_hashes(ALICE)[0]
    stored, shuffled = empty(user_hash), list(elements)
    random.shuffle(shuffled)
    for element in shuffled:
        change = RowSetChange(user_hash)
        change.add_made(element)
        stored = change.applied_to(stored)
    total = RowSet.read(user_hash, stored)
    assert (total.count, total.total, total.version) == (len(elements), sum(elements) % MODULUS, len(elements))
