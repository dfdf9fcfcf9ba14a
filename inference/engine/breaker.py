"""A circuit breaker with a slow-call rule, after resilience4j.

    CLOSED ──(≥ 50% of the last 50 forwards slow or failed, at least 10 seen)──▶ OPEN
    OPEN ──(10–30 s, jittered)──▶ HALF_OPEN: one shadow probe at a time, 2 s each; users have the plain order meanwhile
    HALF_OPEN ──(3 good probes)──▶ CLOSED        HALF_OPEN ──(a bad or overdue probe)──▶ OPEN

Queue-full and predicted-late are load, not sickness: they are never recorded here. No call runs under the lock.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Permit(StrEnum):
    """What the breaker answers a caller: run it, run it as a shadow probe, or do not."""

    RUN = "run"
    PROBE = "probe"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Policy:
    """Times in seconds. A forward slower than `slow_after` counts as bad."""

    slow_after: float
    window: int = 50
    minimum: int = 10
    bad_share: float = 0.5
    open_for: tuple[float, float] = (10.0, 30.0)
    probe_deadline: float = 2.0
    probes_to_close: int = 3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The breaker at one moment, for metrics and the admin."""

    state: State
    slow: int
    failed: int
    seen: int
    opened_total: int
    reason: str


class CircuitBreaker:
    """Thread-safe. `clock` (monotonic seconds) and `jitter` (low, high → seconds) can be replaced by a test.

    `on_open` hears the reason each time the breaker opens; it is called under the lock and must be brief.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
        on_open: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.policy = policy
        self._clock = clock
        self._jitter = jitter
        self._on_open = on_open
        self._lock = threading.Lock()
        self._window: deque[tuple[bool, bool]] = deque(maxlen=policy.window)  # (slow, failed)
        self._state = State.CLOSED
        self._reopen_at = 0.0
        self._probe_started: float | None = None
        self._good_probes = 0
        self._held = False
        self._opened_total = 0
        self._reason = ""

    def admit(self) -> Permit:
        """Ask before every call. After PROBE the caller owes `finish_probe` or `abandon_probe`."""
        with self._lock:
            self._expire()
            if self._state is State.CLOSED:
                return Permit.RUN
            if self._state is State.OPEN or self._probe_started is not None:
                return Permit.REFUSE
            self._probe_started = self._clock()
            return Permit.PROBE

    def record(self, seconds: float, *, failed: bool = False) -> None:
        """Count one forward. Opens the breaker when the window's bad share reaches the policy's."""
        with self._lock:
            self._window.append((seconds > self.policy.slow_after, failed))
            if self._state is State.CLOSED and self._is_sick():
                self._open("slow or failing forwards")

    def finish_probe(self, seconds: float, *, failed: bool = False) -> None:
        """Tell how the probe went. A probe that ended after its deadline was counted as bad already."""
        with self._lock:
            self._expire()
            if self._state is not State.HALF_OPEN or self._probe_started is None:
                return
            self._probe_started = None
            if failed or seconds > self.policy.slow_after:
                self._open("bad probe")
                return
            self._good_probes += 1
            if self._good_probes >= self.policy.probes_to_close:
                self._close()

    def abandon_probe(self) -> None:
        """The probe never ran, through no fault of the model (a full queue): let another caller try."""
        with self._lock:
            self._probe_started = None

    def trip(self, reason: str, *, hold: bool = False) -> None:
        """Open at once, whatever the window says. With `hold`, until the process restarts."""
        with self._lock:
            self._held = self._held or hold
            if hold or self._state is State.CLOSED:
                self._open(reason)

    def state(self) -> State:
        """The state alone, which costs less than a snapshot."""
        with self._lock:
            self._expire()
            return self._state

    def snapshot(self) -> Snapshot:
        with self._lock:
            self._expire()
            slow = sum(slow for slow, _ in self._window)
            failed = sum(failed for _, failed in self._window)
            return Snapshot(self._state, slow, failed, len(self._window), self._opened_total, self._reason)

    def _is_sick(self) -> bool:
        seen = len(self._window)
        bad = sum(slow or failed for slow, failed in self._window)
        return seen >= self.policy.minimum and bad >= self.policy.bad_share * seen

    def _expire(self) -> None:
        now = self._clock()
        if self._state is State.OPEN and not self._held and now >= self._reopen_at:
            self._state = State.HALF_OPEN
            self._good_probes = 0
        overdue = self._probe_started is not None and now - self._probe_started > self.policy.probe_deadline
        if self._state is State.HALF_OPEN and overdue:
            self._open("overdue probe")

    def _open(self, reason: str) -> None:
        self._state = State.OPEN
        self._reason = reason
        self._opened_total += 1
        self._probe_started = None
        self._reopen_at = self._clock() + self._jitter(*self.policy.open_for)
        self._on_open(reason)

    def _close(self) -> None:
        self._state = State.CLOSED
        self._reason = ""
        self._window.clear()
