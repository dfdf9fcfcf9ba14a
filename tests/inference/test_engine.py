import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from inference.engine.backend import EngineLimits
from inference.engine.breaker import Policy, State
from inference.engine.jobs import Encoded, Refusal, Refused
from tests.inference.factories import (
    FakeClock,
    FakeModel,
    Gate,
    make_engine,
    passages,
    questions,
    request,
    results,
    wait_until,
)


def sizes(model: FakeModel) -> list[int]:
    return [len(batch) for batch in model.batches]


def reason_of(callable_: Any, *args: Any) -> Refusal:
    with pytest.raises(Refused) as caught:
        callable_(*args)
    return caught.value.reason


class TestMicroBatching:
    def test_what_waited_together_goes_together_up_to_32_pairs(self) -> None:
        gate = Gate()
        model = FakeModel(gate)
        engine = make_engine(model)
        first = engine.submit(questions(1), 5)
        assert gate.entered.wait(5)
        waiting = [engine.submit(questions(10), 5) for _ in range(4)]
        gate.opened.set()
        for job in (first, *waiting):
            job.future.result(5)
        assert sizes(model) == [1, 30, 10]
        engine.stop()

    def test_a_request_of_33_is_scored_whole(self) -> None:
        model = FakeModel()
        engine = make_engine(model)
        scores = engine.submit(questions(33), 5).future.result(5)
        assert scores == tuple(2.0 * number for number in range(33))
        assert sizes(model) == [32, 1]
        engine.stop()

    def test_a_model_that_cannot_mix_gets_one_request_at_a_time(self) -> None:
        gate = Gate()
        model = FakeModel(gate, mixes=False)
        engine = make_engine(model)
        jobs = [engine.submit(questions(2), 5) for _ in range(3)]
        gate.opened.set()
        for job in jobs:
            job.future.result(5)
        assert sizes(model) == [2, 2, 2]
        engine.stop()


class TestAdmission:
    def test_a_full_queue_refuses_at_once(self) -> None:
        gate = Gate()
        engine = make_engine(FakeModel(gate), limits=EngineLimits(queue=2))
        engine.submit(questions(1), 5)
        assert gate.entered.wait(5)
        engine.submit(questions(32), 5)
        engine.submit(questions(32), 5)
        assert reason_of(engine.submit, questions(32), 5) is Refusal.QUEUE_FULL
        gate.opened.set()
        engine.stop()

    def test_a_request_that_would_be_late_is_refused_and_the_breaker_does_not_mind(self) -> None:
        clock = FakeClock()
        gate = Gate()
        gate.opened.set()
        model = FakeModel(lambda items: clock.advance(0.1))
        engine = make_engine(model, clock=clock)
        engine.submit(questions(24), 0.25).future.result(5)  # teaches the engine: 100 ms for 24
        model.misbehave = gate
        gate.entered.clear()
        gate.opened.clear()
        engine.submit(questions(24), 5)
        assert gate.entered.wait(5)
        engine.submit(questions(24), 5)
        assert reason_of(engine.submit, questions(24), 0.25) is Refusal.PREDICTED_LATE  # 100 + 100 + 100 ms
        assert engine.submit(questions(24), 0.5)  # has the time
        assert engine.breaker.snapshot().failed == 0
        gate.opened.set()
        engine.stop()

    def test_an_idle_engine_takes_any_ordinary_request_however_slow_it_was(self) -> None:
        clock = FakeClock()
        engine = make_engine(FakeModel(lambda items: clock.advance(0.9)), clock=clock)
        engine.submit(questions(24), 2).future.result(5)
        engine.submit(questions(24), 0.25)  # the breaker must see slowness to judge it
        assert reason_of(engine.submit, questions(10_000), 0.25) is Refusal.PREDICTED_LATE
        engine.stop()

    def test_expired_and_cancelled_jobs_cost_no_work(self) -> None:
        clock, gate = FakeClock(), Gate()
        model = FakeModel(gate)
        engine = make_engine(model, clock=clock)
        engine.submit(questions(1), 60)
        assert gate.entered.wait(5)
        expired, cancelled, alive = (engine.submit(questions(20), seconds) for seconds in (1, 60, 60))
        cancelled.future.cancel()
        clock.advance(1.5)
        gate.opened.set()
        alive.future.result(5)
        assert reason_of(expired.future.result, 5) is Refusal.TIMEOUT
        assert sizes(model) == [1, 20]
        engine.stop()

    def test_the_dead_leave_their_places_in_the_queue(self) -> None:
        clock, gate = FakeClock(), Gate()
        engine = make_engine(FakeModel(gate), clock=clock, limits=EngineLimits(queue=2))
        engine.submit(questions(1), 60)
        assert gate.entered.wait(5)
        engine.submit(questions(32), 1)
        engine.submit(questions(32), 60).future.cancel()
        clock.advance(1.5)
        alive = engine.submit(questions(2), 60)
        gate.opened.set()
        assert alive.future.result(5) == (0.0, 2.0)
        engine.stop()


class TestSupervision:
    def test_a_loop_that_dies_fails_what_waits_and_starts_again_once(self) -> None:
        gate = Gate()
        model = FakeModel(gate)
        engine = make_engine(model)
        deaths = 2

        def dying(jobs: Any, part: slice) -> None:
            nonlocal deaths
            gate(())
            if deaths:
                deaths -= 1
                raise RuntimeError("a bug in the loop")
            serve(jobs, part)

        serve, engine._serve = engine._serve, dying  # type: ignore[method-assign]
        first = engine.submit(questions(2), 5)
        assert gate.entered.wait(5)
        waiting = engine.submit(questions(32), 5)
        gate.opened.set()
        assert reason_of(first.future.result, 5) is Refusal.ERROR
        assert reason_of(waiting.future.result, 5) is Refusal.ERROR
        again = engine.submit(questions(2), 5)  # restarted, and dies for good
        assert reason_of(again.future.result, 5) is Refusal.ERROR
        engine._threads[0].join(5)
        assert reason_of(engine.submit, questions(2), 5) is Refusal.BREAKER_OPEN
        assert not engine.heartbeat()["alive"]

    def test_the_loop_lives_on_after_one_death(self) -> None:
        engine = make_engine(FakeModel())
        serve = engine._serve

        def dying_once(jobs: Any, part: slice) -> None:
            engine._serve = serve  # type: ignore[method-assign]
            raise RuntimeError("a bug in the loop")

        engine._serve = dying_once  # type: ignore[method-assign]
        assert reason_of(engine.submit(questions(2), 5).future.result, 5) is Refusal.ERROR
        assert engine.submit(questions(2), 5).future.result(5) == (0.0, 2.0)
        engine.stop()

    def test_stop_fails_what_waits_and_closes_the_model(self) -> None:
        gate = Gate()
        model = FakeModel(gate)
        engine = make_engine(model)
        running = engine.submit(questions(2), 5)
        assert gate.entered.wait(5)
        waiting = [engine.submit(questions(32), 5) for _ in range(5)]
        threading.Timer(0.05, gate.opened.set).start()
        engine.stop()
        assert {reason_of(job.future.result, 0) for job in waiting} == {Refusal.ERROR}
        assert running.future.result(0) == (0.0, 2.0)
        assert model.closed and not engine.is_alive()
        assert reason_of(engine.submit, questions(2), 5) is Refusal.ERROR

    def test_a_forward_that_never_returns_opens_the_breaker(self) -> None:
        clock, gate = FakeClock(), Gate()
        engine = make_engine(FakeModel(gate), clock=clock)
        engine.submit(questions(2), 0.25)
        assert gate.entered.wait(5)
        clock.advance(1.9)
        engine.submit(questions(2), 0.25)  # might still come back
        clock.advance(0.2)
        assert reason_of(engine.submit, questions(2), 0.25) is Refusal.BREAKER_OPEN
        assert engine.heartbeat()["forward_seconds"] == 2.1
        gate.opened.set()
        engine.stop()

    def test_probes_are_shadows_and_bring_the_engine_back(self) -> None:
        clock = FakeClock()
        model = FakeModel(lambda items: clock.advance(0.3))
        engine = make_engine(model, clock=clock, policy=Policy(slow_after=0.2, open_for=(10, 10)))
        for _ in range(10):
            job = engine.submit(questions(2), 0.25)
            assert reason_of(job.future.result, 5) is Refusal.TIMEOUT
        assert engine.breaker.snapshot().state is State.OPEN
        model.misbehave = lambda items: None
        clock.advance(10)
        before = len(model.batches)
        for probes in (1, 2, 3):
            assert reason_of(engine.submit, questions(2), 0.25) is Refusal.BREAKER_OPEN
            wait_until(lambda: len(model.batches) == before + probes and not engine._in_flight)  # noqa: B023
        wait_until(lambda: engine.breaker.snapshot().state is State.CLOSED)
        assert engine.submit(questions(2), 0.25).future.result(5) == (0.0, 2.0)
        engine.stop()


class TestSickness:
    def test_out_of_memory_fails_the_request_and_opens_the_breaker(self) -> None:
        class OutOfMemoryError(RuntimeError):  # as torch calls it
            pass

        def always(items: Sequence[Encoded]) -> None:
            raise OutOfMemoryError("CUDA out of memory")

        engine = make_engine(FakeModel(always))
        while engine.breaker.snapshot().seen < 10:
            assert reason_of(engine.submit(questions(24), 5).future.result, 5) is Refusal.ERROR
        assert engine.breaker.snapshot().state is State.OPEN
        engine.stop()

    def test_not_finite_scores_fail_only_the_requests_they_belong_to(self) -> None:
        gate = Gate()

        def nan_for_negative(items: Sequence[Encoded]) -> np.ndarray:
            gate(items)
            return np.array([float("nan") if item.payload < 0 else 1.0 for item in items])

        engine = make_engine(FakeModel(nan_for_negative))
        engine.submit(questions(1), 5)
        assert gate.entered.wait(5)
        bad, good = engine.submit(request([1, -1]), 5), engine.submit(request([1]), 5)
        gate.opened.set()
        assert good.future.result(5) == (1.0,)
        assert reason_of(bad.future.result, 5) is Refusal.NOT_FINITE
        engine.stop()


class TestPriorities:
    def test_a_question_goes_before_passages_that_waited_longer(self) -> None:
        gate = Gate()
        model = FakeModel(gate)
        engine = make_engine(model)
        first = engine.submit(passages([0]), 5)
        assert gate.entered.wait(5)
        waiting = [engine.submit(passages([1]), 5), engine.submit(request([2]), 5)]
        gate.opened.set()
        for job in (first, *waiting):
            results(job)
        assert model.batches == [[0], [2], [1]]
        engine.stop()

    def test_passages_leave_an_owner_free_for_questions(self) -> None:
        gate = Gate()
        model = FakeModel(lambda items: gate(items) if items[0].payload < 10 else None, workers=2)
        engine = make_engine(model)
        busy = [engine.submit(passages([number] * 32), 5) for number in range(3)]
        assert gate.entered.wait(5)
        assert results(engine.submit(request([10]), 5)) == (20,)  # while a forward of passages hangs
        gate.opened.set()
        for job in busy:
            results(job)
        engine.stop()

    def test_submitters_take_turns(self) -> None:
        gate = Gate()
        model = FakeModel(gate, mixes=False)
        engine = make_engine(model)
        first = engine.submit(passages([0], "alice"), 5)
        assert gate.entered.wait(5)
        many = [engine.submit(passages([number], "alice"), 5) for number in (1, 2, 3)]
        one = engine.submit(passages([4], "bob"), 5)
        gate.opened.set()
        for job in (first, *many, one):
            results(job)
        assert model.batches == [[0], [1], [4], [2], [3]]
        engine.stop()

    def test_passages_stay_within_a_slice_however_many_wait(self) -> None:
        gate = Gate()
        model = FakeModel(gate)
        engine = make_engine(model, limits=EngineLimits(slice_tokens=100))
        first = engine.submit(passages([0]), 5)
        assert gate.entered.wait(5)
        waiting = [engine.submit(passages([number], tokens=40), 5) for number in (1, 2, 3)]
        gate.opened.set()
        for job in (first, *waiting):
            results(job)
        assert model.batches == [[0], [1, 2], [3]]
        engine.stop()


class TestLentThreads:
    def test_a_lone_request_runs_in_the_callers_thread(self) -> None:
        model = FakeModel()
        engine = make_engine(model)
        assert results(engine.submit(request([1, 2]), 5, here=True)) == (2, 4)
        assert model.threads == [threading.current_thread().name]
        engine.stop()

    def test_one_that_has_company_is_left_to_an_owner_and_batched(self) -> None:
        gate = Gate()
        model = FakeModel(gate)
        engine = make_engine(model, limits=EngineLimits(questions=1))
        lone = threading.Thread(target=lambda: engine.submit(request([0]), 5, here=True))
        lone.start()
        assert gate.entered.wait(5)
        waiting = [engine.submit(request([number]), 5, here=True) for number in (1, 2, 3)]
        gate.opened.set()
        assert [results(job) for job in waiting] == [(2,), (4,), (6,)]
        lone.join(5)
        assert model.batches == [[0], [1, 2, 3]]
        assert set(model.threads[1:]) == {"fake-0"}
        engine.stop()

    def test_passages_in_flight_do_not_keep_a_question_from_running_here(self) -> None:
        gate = Gate()
        model = FakeModel(lambda items: gate(items) if not items[0].payload else None, workers=2)
        engine = make_engine(model)
        busy = engine.submit(passages([0]), 5)
        assert gate.entered.wait(5)
        assert results(engine.submit(request([1]), 5, here=True)) == (2,)
        assert model.threads[1] == threading.current_thread().name
        gate.opened.set()
        results(busy)
        engine.stop()

    def test_a_bug_fails_the_request_and_frees_the_place(self) -> None:
        engine = make_engine(FakeModel())
        serve = engine._serve
        engine._serve = lambda jobs, part: 1 / 0  # type: ignore[method-assign, return-value]
        assert reason_of(engine.submit(request([1]), 5, here=True).future.result, 0) is Refusal.ERROR
        engine._serve = serve  # type: ignore[method-assign]
        assert results(engine.submit(request([1]), 5, here=True)) == (2,)
        engine.stop()

    def test_one_that_never_returns_opens_the_breaker_for_the_others(self) -> None:
        clock, gate = FakeClock(), Gate()
        engine = make_engine(FakeModel(gate, workers=2), clock=clock, limits=EngineLimits(questions=1))
        lone = threading.Thread(target=lambda: engine.submit(request([0]), 1, here=True))
        lone.start()
        assert gate.entered.wait(5)
        late = engine.submit(request([1]), 1, here=True)
        clock.advance(2.5)
        assert reason_of(engine.submit, request([2]), 1) is Refusal.BREAKER_OPEN
        assert reason_of(engine.wait, late) is Refusal.TIMEOUT
        gate.opened.set()
        lone.join(5)
        engine.stop()


class TestMany:
    def test_results_come_in_order_with_as_many_at_once_as_may_run(self) -> None:
        model = FakeModel(workers=4, mixes=False)
        engine = make_engine(model)
        many = (passages([number]) for number in range(20))
        assert list(engine.run(many, 5)) == [(2.0 * number,) for number in range(20)]
        engine.stop()

    def test_the_first_that_fails_ends_it_and_drops_the_rest(self) -> None:
        def fail_one(items: Sequence[Encoded]) -> None:
            if items[0].payload == 1:
                raise ValueError

        model = FakeModel(fail_one)
        engine = make_engine(model)
        assert reason_of(list, engine.run((passages([number]) for number in range(9)), 5)) is Refusal.ERROR
        assert len(model.batches) <= 3
        engine.stop()

    def test_a_job_that_is_late_is_dropped_by_who_waits(self) -> None:
        clock, gate = FakeClock(), Gate()
        engine = make_engine(FakeModel(gate), clock=clock)
        engine.submit(request([0]), 60)
        assert gate.entered.wait(5)
        late = engine.submit(request([1] * 32), 1)
        clock.advance(1.5)
        assert reason_of(engine.wait, late) is Refusal.TIMEOUT
        gate.opened.set()
        engine.stop()


class TestRows:
    def test_embeddings_of_the_right_width_are_rows(self) -> None:
        engine = make_engine(FakeModel(row=(3,)))
        (row,) = results(engine.submit(request([1]), 5))
        assert np.array_equal(row, [2, 2, 2])
        engine.stop()

    @pytest.mark.parametrize("shape", [(1, 2), (2, 3), (1,), ()])
    def test_results_of_another_shape_are_an_error(self, shape: tuple[int, ...]) -> None:
        engine = make_engine(FakeModel(lambda items: np.zeros(shape), row=(3,)))
        assert reason_of(engine.submit(request([1]), 5).future.result, 5) is Refusal.ERROR
        assert engine.breaker.snapshot().failed == 1
        engine.stop()

    def test_one_number_that_is_none_spoils_its_row_alone(self) -> None:
        rows = np.array([[1.0, 2.0], [1.0, float("inf")]])
        engine = make_engine(FakeModel(lambda items: rows[: len(items)], row=(2,)))
        assert reason_of(engine.submit(request([1, 2]), 5).future.result, 5) is Refusal.NOT_FINITE
        assert np.array_equal(results(engine.submit(request([1]), 5))[0], [1, 2])
        engine.stop()


class TestBreakerAndPassages:
    def test_slow_passages_are_no_sickness_and_failing_ones_are(self) -> None:
        clock = FakeClock()
        model = FakeModel(lambda items: clock.advance(3))
        engine = make_engine(model, clock=clock)
        for _ in range(12):
            results(engine.submit(passages([1]), 60))
        assert engine.breaker.snapshot().state is State.CLOSED
        model.misbehave = lambda items: np.array([np.nan])
        for _ in range(12):
            assert reason_of(engine.submit(passages([1]), 60).future.result, 5) is Refusal.NOT_FINITE
        assert reason_of(engine.submit, passages([1]), 60) is Refusal.BREAKER_OPEN
        engine.stop()

    def test_passages_probe_by_themselves(self) -> None:
        clock = FakeClock()
        engine = make_engine(FakeModel(), clock=clock, policy=Policy(slow_after=0.2, open_for=(10, 10)))
        engine.breaker.trip("for the test")
        assert reason_of(engine.submit, passages([1]), 60) is Refusal.BREAKER_OPEN
        clock.advance(11)
        for _ in range(3):
            assert results(engine.submit(passages([1]), 60)) == (2,)
        assert engine.breaker.snapshot().state is State.CLOSED
        engine.stop()
