"""What is recorded of an hour, by whom, and what is read back."""

from datetime import timedelta

import pytest
from django.db import OperationalError

from keys import leases
from memory import metrics
from project.dashboard import counted, hours, levels, recorder
from project.dashboard.recorder import Recorder
from project.models import HourlyCount
from tests.factories import remember

pytestmark = pytest.mark.django_db(transaction=True)


def test_processes_add_what_they_counted_to_the_same_hour() -> None:
    one, other = Recorder(), Recorder()
    metrics.INTEGRITY_FAILURES.inc(3)
    one.tell()
    one.tell()
    assert hours.sums().day == {counted.INTEGRITY: 3}
    other.tell()
    assert hours.sums().hour[counted.INTEGRITY] == 6


def test_what_could_not_be_written_is_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Recorder()
    metrics.KEY_ID_DRIFT.inc()
    with monkeypatch.context() as patched:
        patched.setattr(recorder, "ADD", "SELECT no_such_column, %s, %s")
        with pytest.raises(Exception, match="no_such_column"):
            told.tell()
    told.tell()
    assert hours.sums().day[counted.DRIFT] == 1


def test_a_quiet_process_writes_nothing(django_assert_num_queries: object) -> None:
    told = Recorder()
    told.tell()
    assert not HourlyCount.objects.exists()


def test_levels_are_sampled_by_one_process_and_replaced() -> None:
    remember("person:1", "a", "one", "two")
    first, second = Recorder(), Recorder()
    first.record()
    assert hours.last_levels()[levels.CHUNKS] == 2
    remember("person:2", "a", "one")
    first.record()
    assert hours.last_levels()[levels.CHUNKS] == 2
    assert leases.is_held(levels.LEASE)
    second._sampler._next_at = first._sampler._next_at = float("-inf")
    second.record()
    assert (hours.last_levels()[levels.CHUNKS], hours.last_levels()[levels.TENANT_COUNT]) == (3, 2)


def test_hours_are_kept_for_five_weeks() -> None:
    for days in (34, 36):
        HourlyCount.objects.create(name="errors", hour=hours.this_hour() - timedelta(days=days), value=1)
    Recorder().record()
    assert HourlyCount.objects.filter(name="errors").count() == 1


def test_no_name_is_made_of_anything_that_is_asked() -> None:
    metrics.STAGE_SECONDS.labels("query", "embed").observe(0.1)
    names = set(counted.read())
    fixed = {counted.ANSWERS, counted.ERRORS, counted.THROTTLED, counted.INTEGRITY, counted.DRIFT, counted.CREDENTIALS,
             counted.LOGINS, counted.DEGRADED, counted.INDEXED}  # fmt: skip
    begins = (f"{counted.QUERY} ", f"{counted.RERANK} ", *(f"{counted.stage(stage)} " for stage in counted.STAGES))
    assert not [name for name in names - fixed if not name.startswith(begins)]
    assert len(names) < 200


def test_a_series_has_even_steps_that_end_with_this_hour() -> None:
    for ago, value in ((0, 5.0), (1, 2.0), (7 * 24 - 1, 1.0), (7 * 24, 9.0)):
        HourlyCount.objects.create(name="errors", hour=hours.this_hour() - timedelta(hours=ago), value=value)
    week = hours.series(["errors"], days=7)
    assert week.points == 168
    assert [week.value("errors", point) for point in (0, 166, 167)] == [1, 2, 5]
    month = hours.series(["errors"], days=30)
    assert month.points == 144 and month.value("errors", month.points - 1) == 7


def test_the_percentile_of_buckets_is_interpolated() -> None:
    assert hours.percentile({0.1: 0, 0.2: 10, float("inf"): 10}, 0.5) == pytest.approx(0.15)
    assert hours.percentile({0.1: 1, 0.2: 1, float("inf"): 10}, 0.95) == 0.2
    assert hours.percentile({0.1: 0, float("inf"): 0}, 0.5) is None
    assert hours.percentile({}, 0.5) is None
    assert hours.buckets("query", (0.1, 0.25), {"query 0.25": 2.0, "query +Inf": 2.0}) == {
        0.1: 0.0,
        0.25: 2.0,
        float("inf"): 2.0,
    }


def test_without_a_database_a_process_still_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: object) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(Recorder, "tell", away)
    recorder._tell_the_rest()
