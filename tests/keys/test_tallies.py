"""Rows by key as they were counted last."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from keys import tallies
from keys.models import KeyTally, Purpose
from keys.movers import mover_of
from keys.status import key_report
from memory.rotation.encryption_key import EncryptionKeyMover
from tests.memory.rotation.rotating import store_all

pytestmark = pytest.mark.django_db(transaction=True)
MOVER = EncryptionKeyMover()


def test_a_count_is_kept_and_read_back() -> None:
    assert tallies.latest(Purpose.ENCRYPTION) is None
    store_all()
    taken, kept = tallies.take(MOVER), tallies.latest(Purpose.ENCRYPTION)
    assert kept and kept.counts == taken.counts == MOVER.key_counts()


def test_rows_are_not_counted_again_before_it_is_worth_it() -> None:
    tallies.take(MOVER)
    store_all()
    tallies.take_when_due(MOVER)
    assert (kept := tallies.latest(Purpose.ENCRYPTION)) and kept.counts == []
    KeyTally.objects.update(counted_at=Now() - timedelta(minutes=5), seconds=60.0)
    tallies.take_when_due(MOVER)
    assert (kept := tallies.latest(Purpose.ENCRYPTION)) and kept.counts == []
    KeyTally.objects.update(seconds=1.0)
    tallies.take_when_due(MOVER)
    assert (kept := tallies.latest(Purpose.ENCRYPTION)) and kept.counts == MOVER.key_counts() != []


def test_a_mover_of_some_tenants_alone_leaves_what_was_counted_of_all() -> None:
    class OfNobody(EncryptionKeyMover):
        def key_counts(self) -> list[Any]:
            return []

    store_all()
    tallies.take(MOVER)
    assert tallies.take(OfNobody()).counts == []
    assert (kept := tallies.latest(Purpose.ENCRYPTION)) and kept.counts == MOVER.key_counts()


def test_a_report_without_counting_asks_no_table_of_rows(django_assert_max_num_queries: Any) -> None:
    store_all()
    for purpose in Purpose:
        tallies.take(mover_of(purpose))
    with django_assert_max_num_queries(12) as asked:
        report = key_report(count=False)
    assert [key.row_count for key in report.keys] == [key.row_count for key in key_report().keys]
    assert not [query for query in asked.captured_queries if "memory_" in query["sql"] or "tenants" in query["sql"]]


def test_nothing_may_be_removed_before_rows_were_counted() -> None:
    report = key_report(count=False)
    assert report.removable == [] and report.counted_at is None
    assert any("not been counted" in line for line in report.attention)
