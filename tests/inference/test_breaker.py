import threading

import pytest

from inference.engine.breaker import CircuitBreaker, Permit, Policy, State
from tests.inference.factories import FakeClock

SLOW, FAST = 0.3, 0.01


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker(Policy(slow_after=0.2), clock=clock, jitter=lambda low, high: low)


def opened(breaker: CircuitBreaker) -> CircuitBreaker:
    for _ in range(10):
        breaker.record(SLOW)
    assert breaker.snapshot().state is State.OPEN
    return breaker


class TestCircuitBreaker:
    def test_nine_bad_forwards_are_too_few_to_judge(self, breaker: CircuitBreaker) -> None:
        for _ in range(9):
            breaker.record(SLOW)
        assert breaker.admit() is Permit.RUN
        breaker.record(SLOW)
        assert breaker.admit() is Permit.REFUSE

    def test_half_of_the_window_bad_opens_less_does_not(self, breaker: CircuitBreaker) -> None:
        for _ in range(26):
            breaker.record(FAST)
        for _ in range(24):
            breaker.record(SLOW)
        assert breaker.snapshot().state is State.CLOSED
        breaker.record(SLOW)  # pushes a fast one out: 25 of 50
        assert breaker.snapshot().state is State.OPEN

    def test_failures_and_slowness_add_up(self, breaker: CircuitBreaker) -> None:
        for _ in range(3):
            breaker.record(SLOW)
        for _ in range(2):
            breaker.record(FAST, failed=True)
        for _ in range(4):
            breaker.record(FAST)
        assert breaker.snapshot().state is State.CLOSED
        breaker.record(FAST)  # the tenth: five of ten were bad
        assert breaker.snapshot().state is State.OPEN

    def test_exactly_the_threshold_is_not_slow(self, breaker: CircuitBreaker) -> None:
        for _ in range(50):
            breaker.record(0.2)
        assert breaker.snapshot().state is State.CLOSED

    def test_recovers_through_three_good_probes_one_at_a_time(self, breaker: CircuitBreaker, clock: FakeClock) -> None:
        opened(breaker)
        clock.advance(9.9)
        assert breaker.admit() is Permit.REFUSE
        clock.advance(0.2)
        for _ in range(3):
            assert breaker.snapshot().state is State.HALF_OPEN
            assert breaker.admit() is Permit.PROBE
            assert breaker.admit() is Permit.REFUSE  # one at a time
            breaker.finish_probe(FAST)
        assert breaker.admit() is Permit.RUN
        assert breaker.snapshot().seen == 0  # the old window is forgotten

    @pytest.mark.parametrize(("seconds", "failed"), [(SLOW, False), (FAST, True)])
    def test_a_bad_probe_opens_again(
        self, breaker: CircuitBreaker, clock: FakeClock, seconds: float, failed: bool
    ) -> None:
        opened(breaker)
        clock.advance(10)
        for _ in range(2):
            breaker.admit()
            breaker.finish_probe(FAST)
        assert breaker.admit() is Permit.PROBE
        breaker.finish_probe(seconds, failed=failed)
        assert breaker.snapshot().state is State.OPEN
        clock.advance(10)
        assert breaker.admit() is Permit.PROBE  # and counts from none again
        breaker.finish_probe(FAST)
        assert breaker.snapshot().state is State.HALF_OPEN

    def test_an_overdue_probe_is_a_bad_one(self, breaker: CircuitBreaker, clock: FakeClock) -> None:
        opened(breaker)
        clock.advance(10)
        assert breaker.admit() is Permit.PROBE
        clock.advance(2.1)
        assert breaker.admit() is Permit.REFUSE
        breaker.finish_probe(FAST)  # too late to count
        assert breaker.snapshot().state is State.OPEN

    def test_an_abandoned_probe_lets_the_next_caller_try(self, breaker: CircuitBreaker, clock: FakeClock) -> None:
        opened(breaker)
        clock.advance(10)
        assert breaker.admit() is Permit.PROBE
        breaker.abandon_probe()
        assert breaker.admit() is Permit.PROBE

    def test_jitter_is_asked_for_the_open_time(self, clock: FakeClock) -> None:
        asked: list[tuple[float, float]] = []

        def jitter(low: float, high: float) -> float:
            asked.append((low, high))
            return 17.0

        breaker = opened(CircuitBreaker(Policy(slow_after=0.2), clock=clock, jitter=jitter))
        clock.advance(16.9)
        assert breaker.admit() is Permit.REFUSE
        clock.advance(0.1)
        assert breaker.admit() is Permit.PROBE
        assert asked == [(10.0, 30.0)]

    def test_a_held_trip_never_probes(self, breaker: CircuitBreaker, clock: FakeClock) -> None:
        breaker.trip("loop died", hold=True)
        clock.advance(10_000)
        assert breaker.admit() is Permit.REFUSE
        assert breaker.snapshot().reason == "loop died"

    def test_forwards_that_end_while_open_do_not_move_it(self, breaker: CircuitBreaker, clock: FakeClock) -> None:
        opened(breaker)
        for _ in range(50):
            breaker.record(FAST)
        assert breaker.admit() is Permit.REFUSE
        assert breaker.snapshot().opened_total == 1

    def test_one_probe_among_many_threads(self, breaker: CircuitBreaker, clock: FakeClock) -> None:
        opened(breaker)
        clock.advance(10)
        permits: list[Permit] = []
        threads = [threading.Thread(target=lambda: permits.append(breaker.admit())) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert permits.count(Permit.PROBE) == 1
        assert permits.count(Permit.RUN) == 0
