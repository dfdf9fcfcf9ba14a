import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from rerank import rerank, rerank_now
from rerank.backends import EncodedPair
from rerank.engine.breaker import Policy, State
from rerank.outcomes import Skipped, SkipReason
from tests.rerank.factories import FakeBackend, FakeClock, Gate, make_engine, passages, score_of, serve_with, wait_until


def reason_of(callable_: Any, *args: Any) -> SkipReason:
    with pytest.raises(Skipped) as caught:
        callable_(*args)
    return caught.value.reason


class TestMicroBatching:
    def test_what_waited_together_goes_together_up_to_32_pairs(self) -> None:
        gate = Gate()
        backend = FakeBackend(gate)
        engine = make_engine(backend)
        first = engine.submit("q", passages(1), 5)
        assert gate.entered.wait(5)
        waiting = [engine.submit("q", passages(10), 5) for _ in range(4)]
        gate.opened.set()
        for job in (first, *waiting):
            job.future.result(5)
        assert backend.batches == [1, 30, 10]
        engine.stop()

    def test_a_request_of_33_is_scored_whole(self) -> None:
        backend = FakeBackend()
        engine = make_engine(backend)
        scores = engine.submit("q", passages(33), 5).future.result(5)
        assert scores == tuple(float(number) for number in range(33))
        assert backend.batches == [32, 1]
        engine.stop()

    def test_a_backend_that_cannot_mix_gets_one_request_at_a_time(self) -> None:
        gate = Gate()
        backend = FakeBackend(gate, mixes=False)
        engine = make_engine(backend)
        jobs = [engine.submit("q", passages(2), 5) for _ in range(3)]
        gate.opened.set()
        for job in jobs:
            job.future.result(5)
        assert backend.batches == [2, 2, 2]
        engine.stop()

    def test_scores_never_reach_another_request_under_threads_and_asyncio(self) -> None:
        """Every pair has one answer of its own: any mix-up shows."""
        serve_with(FakeBackend(), queue=10_000)

        def texts(request: int) -> list[str]:
            return [f"x{'y' * (place * 7 % 60)} ={(place * 37 + request) % 101}" for place in range(1 + request % 24)]

        def check(request: int, found: Sequence[float | None]) -> None:
            query = f"request ={request * 1000}"
            assert list(found) == [score_of(query, text) for text in texts(request)]

        def from_thread(request: int) -> None:
            reranking = rerank_now(f"request ={request * 1000}", texts(request), timeout_ms=20_000)
            assert reranking.scores is not None
            check(request, reranking.scores)

        async def from_loop() -> None:
            async def one(request: int) -> None:
                results = await rerank(f"request ={request * 1000}", texts(request), 20_000)
                check(request, [result.score for result in sorted(results, key=lambda result: result.index)])

            await asyncio.gather(*(one(request) for request in range(300)))

        with ThreadPoolExecutor(64) as pool:
            loop = threading.Thread(target=lambda: failures.append(_error_of(from_loop)))
            failures: list[BaseException | None] = []
            loop.start()
            list(pool.map(from_thread, range(300, 900)))
            loop.join()
        assert failures == [None]


def _error_of(coroutine: Any) -> BaseException | None:
    try:
        asyncio.run(coroutine())
    except BaseException as error:
        return error
    return None


class TestAdmission:
    def test_a_full_queue_refuses_at_once(self) -> None:
        gate = Gate()
        engine = make_engine(FakeBackend(gate), queue=2)
        engine.submit("q", passages(1), 5)
        assert gate.entered.wait(5)
        engine.submit("q", passages(32), 5)
        engine.submit("q", passages(32), 5)
        assert reason_of(engine.submit, "q", passages(32), 5) is SkipReason.QUEUE_FULL
        gate.opened.set()
        engine.stop()

    def test_a_request_that_would_be_late_is_refused_and_the_breaker_does_not_mind(self) -> None:
        clock = FakeClock()
        gate = Gate()
        gate.opened.set()
        backend = FakeBackend(lambda pairs: clock.advance(0.1))
        engine = make_engine(backend, clock=clock)
        engine.submit("q", passages(24), 0.25).future.result(5)  # teaches the engine: 100 ms for 24
        backend.misbehave = gate
        gate.entered.clear()
        gate.opened.clear()
        engine.submit("q", passages(24), 5)
        assert gate.entered.wait(5)
        engine.submit("q", passages(24), 5)
        assert reason_of(engine.submit, "q", passages(24), 0.25) is SkipReason.PREDICTED_LATE  # 100 + 100 + 100 ms
        assert engine.submit("q", passages(24), 0.5)  # has the time
        assert engine.breaker.snapshot().failed == 0
        gate.opened.set()
        engine.stop()

    def test_an_idle_engine_takes_any_ordinary_request_however_slow_it_was(self) -> None:
        clock = FakeClock()
        engine = make_engine(FakeBackend(lambda pairs: clock.advance(0.9)), clock=clock)
        engine.submit("q", passages(24), 2).future.result(5)
        engine.submit("q", passages(24), 0.25)  # the breaker must see slowness to judge it
        assert reason_of(engine.submit, "q", passages(10_000), 0.25) is SkipReason.PREDICTED_LATE
        engine.stop()

    def test_expired_and_cancelled_jobs_cost_no_work(self) -> None:
        clock, gate = FakeClock(), Gate()
        backend = FakeBackend(gate)
        engine = make_engine(backend, clock=clock)
        engine.submit("q", passages(1), 60)
        assert gate.entered.wait(5)
        expired, cancelled, alive = (engine.submit("q", passages(20), seconds) for seconds in (1, 60, 60))
        cancelled.future.cancel()
        clock.advance(1.5)
        gate.opened.set()
        alive.future.result(5)
        assert reason_of(expired.future.result, 5) is SkipReason.TIMEOUT
        assert backend.batches == [1, 20]
        engine.stop()

    def test_the_dead_leave_their_places_in_the_queue(self) -> None:
        clock, gate = FakeClock(), Gate()
        engine = make_engine(FakeBackend(gate), clock=clock, queue=2)
        engine.submit("q", passages(1), 60)
        assert gate.entered.wait(5)
        engine.submit("q", passages(32), 1)
        engine.submit("q", passages(32), 60).future.cancel()
        clock.advance(1.5)
        alive = engine.submit("q", passages(2), 60)
        gate.opened.set()
        assert alive.future.result(5) == (0.0, 1.0)
        engine.stop()


class TestSupervision:
    def test_a_loop_that_dies_fails_what_waits_and_starts_again_once(self) -> None:
        gate = Gate()
        backend = FakeBackend(gate)
        engine = make_engine(backend)
        deaths = 2

        def dying(jobs: Any, part: slice) -> None:
            nonlocal deaths
            gate(())
            if deaths:
                deaths -= 1
                raise RuntimeError("a bug in the loop")
            serve(jobs, part)

        serve, engine._serve = engine._serve, dying  # type: ignore[method-assign]
        first = engine.submit("q", passages(2), 5)
        assert gate.entered.wait(5)
        waiting = engine.submit("q", passages(32), 5)
        gate.opened.set()
        assert reason_of(first.future.result, 5) is SkipReason.ERROR
        assert reason_of(waiting.future.result, 5) is SkipReason.ERROR
        again = engine.submit("q", passages(2), 5)  # restarted, and dies for good
        assert reason_of(again.future.result, 5) is SkipReason.ERROR
        engine._threads[0].join(5)
        assert reason_of(engine.submit, "q", passages(2), 5) is SkipReason.BREAKER_OPEN
        assert not engine.heartbeat()["alive"]

    def test_the_loop_lives_on_after_one_death(self) -> None:
        engine = make_engine(FakeBackend())
        serve = engine._serve

        def dying_once(jobs: Any, part: slice) -> None:
            engine._serve = serve  # type: ignore[method-assign]
            raise RuntimeError("a bug in the loop")

        engine._serve = dying_once  # type: ignore[method-assign]
        assert reason_of(engine.submit("q", passages(2), 5).future.result, 5) is SkipReason.ERROR
        assert engine.submit("q", passages(2), 5).future.result(5) == (0.0, 1.0)
        engine.stop()

    def test_stop_fails_what_waits_and_closes_the_backend(self) -> None:
        gate = Gate()
        backend = FakeBackend(gate)
        engine = make_engine(backend)
        running = engine.submit("q", passages(2), 5)
        assert gate.entered.wait(5)
        waiting = [engine.submit("q", passages(32), 5) for _ in range(5)]
        threading.Timer(0.05, gate.opened.set).start()
        engine.stop()
        assert {reason_of(job.future.result, 0) for job in waiting} == {SkipReason.ERROR}
        assert running.future.result(0) == (0.0, 1.0)
        assert backend.closed and not engine.is_alive()
        assert reason_of(engine.submit, "q", passages(2), 5) is SkipReason.ERROR

    def test_a_forward_that_never_returns_opens_the_breaker(self) -> None:
        clock, gate = FakeClock(), Gate()
        engine = make_engine(FakeBackend(gate), clock=clock)
        engine.submit("q", passages(2), 0.25)
        assert gate.entered.wait(5)
        clock.advance(1.9)
        engine.submit("q", passages(2), 0.25)  # might still come back
        clock.advance(0.2)
        assert reason_of(engine.submit, "q", passages(2), 0.25) is SkipReason.BREAKER_OPEN
        assert engine.heartbeat()["forward_seconds"] == 2.1
        gate.opened.set()
        engine.stop()

    def test_probes_are_shadows_and_bring_the_engine_back(self) -> None:
        clock = FakeClock()
        backend = FakeBackend(lambda pairs: clock.advance(0.3))
        engine = make_engine(backend, clock=clock, policy=Policy(slow_after=0.2, open_for=(10, 10)))
        for _ in range(10):
            job = engine.submit("q", passages(2), 0.25)
            assert reason_of(job.future.result, 5) is SkipReason.TIMEOUT
        assert engine.breaker.snapshot().state is State.OPEN
        backend.misbehave = lambda pairs: None
        clock.advance(10)
        before = len(backend.batches)
        for probes in (1, 2, 3):
            assert reason_of(engine.submit, "q", passages(2), 0.25) is SkipReason.BREAKER_OPEN
            wait_until(lambda: len(backend.batches) == before + probes and not engine._in_flight)  # noqa: B023
        wait_until(lambda: engine.breaker.snapshot().state is State.CLOSED)
        assert engine.submit("q", passages(2), 0.25).future.result(5) == (0.0, 1.0)
        engine.stop()


class TestSickness:
    def test_out_of_memory_fails_the_request_and_opens_the_breaker(self) -> None:
        class OutOfMemoryError(RuntimeError):  # as torch calls it
            pass

        def always(pairs: Sequence[EncodedPair]) -> None:
            raise OutOfMemoryError("CUDA out of memory")

        engine = make_engine(FakeBackend(always))
        while engine.breaker.snapshot().seen < 10:
            assert reason_of(engine.submit("q", passages(24), 5).future.result, 5) is SkipReason.ERROR
        assert engine.breaker.snapshot().state is State.OPEN
        engine.stop()

    def test_not_finite_scores_fail_only_the_requests_they_belong_to(self) -> None:
        gate = Gate()

        def nan_for_bad(pairs: Sequence[EncodedPair]) -> np.ndarray:
            gate(pairs)
            return np.array([float("nan") if "bad" in pair.payload[1] else 1.0 for pair in pairs])

        engine = make_engine(FakeBackend(nan_for_bad))
        engine.submit("q", passages(1), 5)
        assert gate.entered.wait(5)
        bad, good = engine.submit("q", ["fine", "bad"], 5), engine.submit("q", ["fine"], 5)
        gate.opened.set()
        assert good.future.result(5) == (1.0,)
        assert reason_of(bad.future.result, 5) is SkipReason.NAN_SCORES
        engine.stop()
