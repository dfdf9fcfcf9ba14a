"""The record of a rotation."""

from dataclasses import replace

import pytest
from django.db import IntegrityError

from keys.exceptions import LeaseTaken, RotationCancelled, RotationRefused
from keys.leases import take
from keys.models import Purpose, RotationRun
from keys.runs import LEASE, FailedRow, cancel_rotation, request_rotation, run_rotation

pytestmark = pytest.mark.django_db

ENCRYPTION = Purpose.ENCRYPTION


def start(to: str = "new", **kwargs):
    return run_rotation(ENCRYPTION, to_key_id=to, from_key_ids=["old"], started_by="shell:me", **kwargs)


def test_a_finished_run_says_so_and_the_next_one_is_another() -> None:
    with start() as progress:
        progress.begin("reseal", total=10)
        progress.advance(10, cursor="f" * 64)
        progress.finish(verified=True)
    run = RotationRun.objects.get()
    assert (run.state, run.verified, run.rows_done, run.share) == ("finished", True, 10, 1.0)
    assert run.finished_at
    with start() as progress:
        assert progress.run.pk != run.pk
        assert progress.run.tenant_cursor == ""


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_left_by_an_error_is_resumed_at_its_cursor(error: type[BaseException]) -> None:
    with pytest.raises(error), start() as progress:
        progress.begin("reseal", total=10)
        progress.advance(4, cursor="a" * 64)
        raise error
    run = RotationRun.objects.get()
    assert run.state == "interrupted"
    with start() as progress:
        assert (progress.run.pk, progress.run.tenant_cursor) == (run.pk, "a" * 64)


def test_a_run_towards_another_key_is_superseded() -> None:
    with start("new"):
        pass
    with start("newer") as progress:
        assert progress.run.to_key_id == "newer"
    old = RotationRun.objects.get(to_key_id="new")
    assert (old.state, old.message) == ("failed", "Superseded by a rotation to newer.")


def test_a_request_is_taken_up_by_the_next_run() -> None:
    requested = request_rotation(ENCRYPTION, requested_by="ann")
    with start() as progress:
        assert progress.run.pk == requested.pk
        assert (progress.run.requested_by, progress.run.started_by) == ("ann", "shell:me")


def test_a_second_request_is_refused_while_one_is_open() -> None:
    request_rotation(ENCRYPTION, requested_by="ann")
    with pytest.raises(RotationRefused, match="open encryption rotation"):
        request_rotation(ENCRYPTION, requested_by="bob")
    request_rotation(Purpose.HMAC, requested_by="bob")


def test_the_database_itself_keeps_open_runs_apart() -> None:
    RotationRun.objects.create(kind=ENCRYPTION, state="interrupted")
    with pytest.raises(IntegrityError):
        RotationRun.objects.create(kind=ENCRYPTION, state="running")


def test_neither_kind_runs_beside_the_other() -> None:
    assert take(LEASE, "another rotation", 30)
    with pytest.raises(LeaseTaken), start():
        pytest.fail("Two rotations at once.")
    assert not RotationRun.objects.exists()


def test_rate_and_reports_follow_the_clock() -> None:
    now = [100.0]
    reports: list[int] = []
    with start(report=lambda run: reports.append(run.rows_done)) as progress:
        progress._clock = lambda: now[0]
        progress.begin("reseal", total=100)
        now[0] += 0.1
        progress.advance(10)
        now[0] += 0.9
        progress.advance(10)
        progress.finish(verified=True)
    assert progress.run.rate == pytest.approx(20.0)
    assert reports == [0, 20, 20]


def test_only_the_first_hundred_failures_are_kept_by_name() -> None:
    failure = FailedRow(table="t", row="1", tenant="abcdef01", key_id="old", reason="does not open")
    with start() as progress:
        progress.fail(*(replace(failure, row=str(number)) for number in range(140)))
        progress.fail(failure, replace(failure, row="0", reason="another"))
        progress.give_up("140 rows do not open.")
    run = RotationRun.objects.get()
    assert (run.state, run.rows_failed, len(run.failures)) == ("failed", 140, 100)


def test_rows_that_were_written_meanwhile_are_no_more_than_all() -> None:
    with start() as progress:
        progress.begin("verify", total=10)
        progress.advance(11)
        progress.finish(verified=True)
    run = RotationRun.objects.get()
    assert (run.rows_done, run.rows_total) == (11, 11)


def test_a_requested_run_is_cancelled_at_once() -> None:
    request_rotation(ENCRYPTION, requested_by="root")
    assert cancel_rotation(ENCRYPTION, cancelled_by="clerk").state == "cancelled"
    assert RotationRun.objects.get().message.startswith("Cancelled by clerk.")
    with pytest.raises(RotationRefused, match="no open"):
        cancel_rotation(ENCRYPTION, cancelled_by="clerk")


def test_a_running_one_is_closed_by_whoever_works_on_it() -> None:
    with pytest.raises(RotationCancelled, match="Cancelled by clerk"), start() as progress:
        progress.begin("reseal", total=10)
        assert cancel_rotation(ENCRYPTION, cancelled_by="clerk").state == "running"
        progress.save()
    run = RotationRun.objects.get()
    assert (run.state, run.cancelled_by) == ("cancelled", "clerk") and run.finished_at
    with start() as progress:
        assert progress.run.pk != run.pk
        progress.finish(verified=True)


def test_one_whose_worker_died_before_it_closed_it_is_not_resumed() -> None:
    run = RotationRun.objects.create(kind=ENCRYPTION, state="running", to_key_id="new", cancelled_by="clerk")
    with start() as progress:
        assert progress.run.pk != run.pk
        progress.finish(verified=True)
    run.refresh_from_db()
    assert run.state == "cancelled"


def test_moving_users_is_cancelled_between_two_of_them_alone() -> None:
    with (
        pytest.raises(RotationCancelled),
        run_rotation(Purpose.HMAC, to_key_id="new", from_key_ids=["old"], started_by="shell:me") as progress,
    ):
        progress.begin("move", total=10)
        cancel_rotation(Purpose.HMAC, cancelled_by="clerk")
        progress.save()
        assert RotationRun.objects.get().state == "running"
        progress.stop_if_cancelled()
    assert RotationRun.objects.get().state == "cancelled"


def test_one_that_stopped_in_the_midst_of_a_user_is_not_cancelled() -> None:
    run = RotationRun.objects.create(kind=Purpose.HMAC, state="interrupted", phase="move", to_key_id="new")
    with pytest.raises(RotationRefused, match="in the midst"):
        cancel_rotation(Purpose.HMAC, cancelled_by="clerk")
    RotationRun.objects.update(cancelled_by="clerk")  # as by somebody, before the worker died
    with (
        pytest.raises(RotationCancelled),
        run_rotation(Purpose.HMAC, to_key_id="new", from_key_ids=["old"], started_by="shell:me") as progress,
    ):
        assert progress.run.pk == run.pk
        progress.save()
        progress.stop_if_cancelled()
    run.refresh_from_db()
    assert run.state == "cancelled"


def test_one_that_nobody_works_on_any_more_is_closed_at_once() -> None:
    with pytest.raises(RuntimeError), start():
        raise RuntimeError
    assert cancel_rotation(ENCRYPTION, cancelled_by="clerk").state == "cancelled"


def test_a_request_that_is_cancelled_before_it_is_taken_up_begins_nothing() -> None:
    run = request_rotation(ENCRYPTION, requested_by="root")
    cancel_rotation(ENCRYPTION, cancelled_by="root")
    with pytest.raises(RotationCancelled), start(only=run.pk):
        raise AssertionError
    assert [each.state for each in RotationRun.objects.all()] == ["cancelled"]


def test_the_time_left_is_that_of_the_pass_at_its_rate() -> None:
    run = RotationRun(kind=ENCRYPTION, state="running", rows_total=1_000, rows_done=400, rate=10.0)
    assert run.seconds_left == 60
    run.rate = 0.0
    assert run.seconds_left is None
