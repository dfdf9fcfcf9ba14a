"""Micro-batching in front of a model: callers submit requests, owner threads run them.

    submit ─▶ bounded queues ─▶ owner: drop the dead ─▶ take whole jobs up to a batch ─▶ encode ─▶ forward(s) ─▶ futures

Questions go before passages, and passages leave one owner free, so that a question waits for no more than one batch.
Batches never wait for company: an owner takes what is there. A job's results are written by item index into the job
itself, so nothing a batch shares can carry a result to another request.

A caller who waits anyway may lend its thread: where nothing of its priority runs or waits, it is its own owner. On a
busy machine handing over to another thread and back costs more than a question does (docs/decisions).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np

from inference.engine.backend import B, EngineLimits
from inference.engine.batching import plan_forwards
from inference.engine.breaker import CircuitBreaker, Permit, State
from inference.engine.cost import CostEstimate
from inference.engine.failures import describe, is_timeout
from inference.engine.instruments import Instruments
from inference.engine.jobs import Encoded, Job, Priority, Refusal, Refused, Request
from inference.engine.queues import FairQueue

logger = logging.getLogger(__name__)

# A question is refused when its predicted end leaves less than this margin of its time: machines are noisy. Without the
# prediction an overloaded queue hands over each request just before its deadline, to be finished after it.
PREDICTED_SHARE_OF_TIMEOUT = 0.8
RESTARTS = 1
BREAKER_GAUGE = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}


@dataclass(frozen=True, slots=True)
class _Flight:
    """What a thread is working on, and since when."""

    since: float
    jobs: Sequence[Job]
    priority: Priority


@dataclass(frozen=True, slots=True)
class _Forward:
    """A forward that runs: since when, and when it should be over at the latest."""

    since: float
    overdue: float
    priority: Priority


class Engine(Generic[B]):
    """Thread-safe. Start it in the process that serves, never before a fork. `name`: the model's, for logs."""

    def __init__(
        self,
        backend: B,
        breaker: CircuitBreaker,
        instruments: Instruments,
        limits: EngineLimits | None = None,
        *,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend = backend
        self.breaker = breaker
        self.limits = limits = limits or EngineLimits()
        self.name = name
        self.slots = {
            Priority.QUESTION: limits.questions or backend.workers,
            Priority.PASSAGE: max(1, backend.workers - 1),
        }
        self._instruments = instruments
        self._clock = clock
        self._wake = threading.Condition()
        self._queues = {priority: FairQueue() for priority in Priority}
        self._in_flight: dict[int, _Flight] = {}  # by thread
        self._forwards: dict[int, _Forward] = {}  # by thread
        self._cost = CostEstimate()
        self._shown: State | None = None  # what the gauge of the breaker says
        self._stopping = False
        self._threads: list[threading.Thread] = []

    # --- For callers ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        for number in range(self.backend.workers):
            thread = threading.Thread(target=self._supervise, name=f"{self.name}-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Fail what waits, let running forwards end for up to `timeout` seconds. Further submits raise."""
        self.refuse_all()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not self.is_alive():
            self.backend.close()

    def refuse_all(self) -> None:
        """Fail what waits, and whatever is submitted from now on. Running forwards end by themselves."""
        with self._wake:
            self._stopping = True
            self._fail_queues()
            self._wake.notify_all()

    def submit(self, request: Request, timeout: float, *, here: bool = False) -> Job:
        """Queue a request of at least one item; `timeout` in seconds. With `here` this thread may be lent: then the job
        may be done on return.

        Raises Refused at once: breaker_open, queue_full, predicted_late, or error once stopped. An open breaker that is
        due for a probe makes a shadow of this question its probe; passages, which can wait, are the probe themselves.
        """
        if self._is_stuck():
            self.breaker.trip("a forward never returned")
        permit = self.breaker.admit()
        self._show_breaker()
        if permit is Permit.REFUSE:
            raise Refused(Refusal.BREAKER_OPEN)
        if permit is Permit.PROBE and request.priority is Priority.QUESTION:
            self._probe(request)
            raise Refused(Refusal.BREAKER_OPEN)
        job = self._job(request, timeout, probe=permit is Permit.PROBE)
        try:
            if here and self._takes_off(job):
                self._work_here(job)
            else:
                self._enqueue(job, timeout)
        except Refused:
            self._abandon(job)
            raise
        return job

    def run(self, requests: Iterable[Request], timeout: float, *, here: bool = False) -> Iterator[tuple[Any, ...]]:
        """The results of each request, in order. Submits as many at once as run at once, each with `timeout` seconds.

        Raises Refused at the first that has no results; those behind it are dropped.
        """
        waiting: list[Job] = []
        try:
            for request in requests:
                if len(waiting) == self.slots[request.priority]:
                    yield self.wait(waiting.pop(0))
                waiting.append(self.submit(request, timeout, here=here))
            while waiting:
                yield self.wait(waiting.pop(0))
        finally:
            for job in waiting:
                job.future.cancel()

    def wait(self, job: Job) -> tuple[Any, ...]:
        """A job's results. Raises Refused, at its deadline at the latest; nobody works on it any more then."""
        try:
            return job.future.result(max(0.0, job.deadline - self._clock()))
        except TimeoutError:
            job.future.cancel()
            raise Refused(Refusal.TIMEOUT) from None

    def is_alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def heartbeat(self) -> dict[str, object]:
        """Is the loop alive, how long does the oldest running forward run (seconds), how many jobs wait."""
        oldest = min((forward.since for forward in list(self._forwards.values())), default=None)
        return {
            "alive": self.is_alive(),
            "forward_seconds": 0.0 if oldest is None else round(self._clock() - oldest, 3),
            "queued": self._waiting(),
        }

    # --- Admission --------------------------------------------------------------------------------------------------

    def _job(self, request: Request, timeout: float, *, probe: bool = False) -> Job:
        now = self._clock()
        return Job(request, enqueued=now, deadline=now + timeout, probe=probe)

    def _enqueue(self, job: Job, timeout: float) -> None:
        queue = self._queues[job.request.priority]
        with self._wake:
            self._refuse_when_stopped()
            self._drop_dead()
            if len(queue) >= self.limits.queue:
                raise Refused(Refusal.QUEUE_FULL)
            if self._may_be_late(job) and self._predicted_seconds(job) > PREDICTED_SHARE_OF_TIMEOUT * timeout:
                raise Refused(Refusal.PREDICTED_LATE)
            queue.append(job)
            self._instruments.queue_depth.set(self._waiting())
            self._wake_owner()

    def _refuse_when_stopped(self) -> None:
        if self._stopping:
            raise Refused(Refusal.ERROR)

    def _may_be_late(self, job: Job) -> bool:
        return job.request.priority is Priority.QUESTION and not job.probe

    def _predicted_seconds(self, job: Job) -> float:
        """Until a question is answered. An idle engine takes any of ordinary size: slowness is the breaker's."""
        waiting = self._queues[Priority.QUESTION]
        slots = self.slots[Priority.QUESTION]
        flights = [flight for flight in self._in_flight.values() if flight.priority is Priority.QUESTION]
        if not waiting and len(flights) < slots and job.size <= self.limits.items:
            return 0.0
        now = self._clock()
        running = sum(max(0.0, self._cost.seconds(_tokens(flight.jobs)) - (now - flight.since)) for flight in flights)
        return (running + self._cost.seconds(_tokens(waiting))) / slots + self._cost.seconds(job.request.tokens)

    def _probe(self, request: Request) -> None:
        deadline = self.breaker.policy.probe_deadline
        size = min(request.size, self.limits.items)
        shadow = Request(size, request.encode, request.tokens, request.priority, request.submitter)
        job = self._job(shadow, deadline, probe=True)
        try:
            self._enqueue(job, deadline)
        except Refused:
            self._abandon(job)

    def _abandon(self, job: Job) -> None:
        if job.probe:
            self.breaker.abandon_probe()

    def _is_stuck(self) -> bool:
        """Whether every owner, or every one that may answer questions, sits in a forward that is long overdue."""
        now = self._clock()
        overdue = [forward.priority for forward in list(self._forwards.values()) if forward.overdue < now]
        questions = overdue.count(Priority.QUESTION)
        return len(overdue) >= self.backend.workers or questions >= self.slots[Priority.QUESTION]

    # --- A thread that is lent --------------------------------------------------------------------------------------

    def _takes_off(self, job: Job) -> bool:
        """Whether the calling thread may work on its job itself; if so, it is in flight."""
        priority = job.request.priority
        with self._wake:
            self._refuse_when_stopped()
            if self._queues[priority] or not self._has_slot(priority) or job.size > self.limits.items:
                return False
            self._in_flight[threading.get_ident()] = _Flight(self._clock(), [job], priority)
            return True

    def _work_here(self, job: Job) -> None:
        try:
            self._work([job])
        except Exception as error:
            logger.error("A lent thread of the %s engine failed: %s", self.name, describe(error))
            self._land()
            self._fail(job, Refusal.ERROR)

    # --- The owner threads ------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        for _ in range(1 + RESTARTS):
            try:
                self._run()
                return
            except Exception as error:
                logger.error("The %s loop died of %s", self.name, describe(error))
                self._fail_everything()
        self.breaker.trip(f"the {self.name} loop died twice", hold=True)
        self.refuse_all()

    def _run(self) -> None:
        while jobs := self._take():
            self._work(jobs)

    def _take(self) -> list[Job]:
        """Block until there is work; whole jobs up to a batch. Nothing once stopped."""
        with self._wake:
            self._drop_dead()
            while (priority := self._next_priority()) is None and not self._stopping:
                self._wake.wait()
                self._drop_dead()
            if priority is None or self._stopping:
                return []
            queue = self._queues[priority]
            jobs = [queue.pop()]
            while (following := queue.next()) and self._fits(jobs, following):
                jobs.append(queue.pop())
            self._in_flight[threading.get_ident()] = _Flight(self._clock(), jobs, priority)
            self._instruments.queue_depth.set(self._waiting())
        return jobs

    def _next_priority(self) -> Priority | None:
        """The first that has a job waiting and may have one more in flight."""
        return next((each for each in Priority if self._queues[each] and self._has_slot(each)), None)

    def _has_slot(self, priority: Priority) -> bool:
        running = sum(flight.priority is priority for flight in self._in_flight.values())
        return running < self.slots[priority]

    def _fits(self, jobs: Sequence[Job], following: Job) -> bool:
        together = [*jobs, following]
        small = sum(job.size for job in together) <= self.limits.items
        return self.backend.mixes_requests and small and _tokens(together) <= self._most_tokens(following)

    def _most_tokens(self, job: Job) -> int:
        return self.limits.tokens if job.request.priority is Priority.QUESTION else self.limits.slice_tokens

    def _work(self, jobs: Sequence[Job]) -> None:
        """Run jobs that are in flight, and land them."""
        started, step = self._clock(), self.limits.items
        for job in jobs:
            self._instruments.queue_seconds.observe(started - job.enqueued)
        for start in range(0, max(job.size for job in jobs), step):
            self._serve(jobs, slice(start, start + step))
        self._settle(jobs, started)

    def _serve(self, jobs: Sequence[Job], part: slice) -> None:
        """Encode and run the items `part` of each job."""
        work = [(job, index, item) for job in jobs for index, item in enumerate(self._encode(job, part), part.start)]
        lengths = [item.tokens for _, _, item in work]
        limits = {"max_items": self.limits.items, "max_tokens": self._most_tokens(jobs[0])}
        for positions in plan_forwards(lengths, **limits):
            self._infer([work[position] for position in positions])

    def _encode(self, job: Job, part: slice) -> Sequence[Encoded]:
        if part.start >= job.size or not job.is_live(self._clock()):
            return []
        started = self._clock()
        try:
            return job.request.encode(slice(part.start, min(part.stop, job.size)))
        except Exception as error:
            logger.error("Tokenising a request to the %s failed: %s", self.name, describe(error))
            self._fail(job, Refusal.ERROR)
            return []
        finally:
            self._instruments.encode_seconds.observe(self._clock() - started)

    def _infer(self, work: Sequence[tuple[Job, int, Encoded]]) -> None:
        now = self._clock()
        work = [item for item in work if item[0].is_live(now)]
        if not work:
            return
        jobs = list({id(job): job for job, _, _ in work}.values())
        try:
            rows = self._forward([item for _, _, item in work], jobs, now)
        except Refused as refused:
            for job in jobs:
                self._fail(job, refused.reason)
            return
        elapsed = self._clock() - now
        for job in jobs:
            job.forward_seconds += elapsed
        finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1).tolist()
        for (job, index, _), row, usable in zip(work, rows.tolist() if rows.ndim == 1 else rows, finite, strict=True):
            if usable:
                job.results[index] = row
            else:
                self._fail(job, Refusal.NOT_FINITE)

    def _forward(self, items: Sequence[Encoded], jobs: Sequence[Job], now: float) -> np.ndarray:
        """Results of shape (len(items), *row). Tells breaker and metrics; raises Refused."""
        timeout = min(job.deadline for job in jobs) - now
        priority = jobs[0].request.priority
        patience = self.breaker.policy.probe_deadline if priority is Priority.QUESTION else timeout
        self._forwards[threading.get_ident()] = _Forward(now, now + patience, priority)
        shape = (len(items), *self.backend.row)
        healthy = False
        try:
            rows = np.asarray(self.backend.forward(items, timeout))
            healthy = rows.shape == shape and bool(np.isfinite(rows).all())
        except Exception as error:
            logger.error("A forward of the %s failed: %s", self.name, describe(error))
            raise Refused(Refusal.TIMEOUT if is_timeout(error) else Refusal.ERROR) from error
        finally:
            self._forwards.pop(threading.get_ident(), None)
            self._record(items, priority, self._clock() - now, healthy)
        if rows.shape != shape:
            logger.error("The %s gave results of shape %s instead of %s", self.name, rows.shape, shape)
            raise Refused(Refusal.ERROR)
        return rows

    def _record(self, items: Sequence[Encoded], priority: Priority, seconds: float, healthy: bool) -> None:
        # Only questions have a deadline that a forward could be slow against.
        self.breaker.record(seconds if priority is Priority.QUESTION else 0.0, failed=not healthy)
        self._show_breaker()
        self._instruments.forward_seconds.observe(seconds)
        self._instruments.batch_items.observe(len(items))
        self._instruments.batch_tokens.observe(len(items) * max(item.tokens for item in items))

    # --- Ends -------------------------------------------------------------------------------------------------------

    def _settle(self, jobs: Sequence[Job], started: float) -> None:
        now = self._clock()
        whole = all(job.is_live(now) for job in jobs)
        self._land(_tokens(jobs) if whole else 0, now - started)
        for job in jobs:
            if now > job.deadline:
                self._fail(job, Refusal.TIMEOUT)
            elif not job.done:
                job.finish()
                self._end_probe(job, failed=False)

    def _land(self, tokens: int = 0, seconds: float = 0.0) -> None:
        """This thread works on nothing any more: learn from what it did, and let the next go."""
        with self._wake:
            self._in_flight.pop(threading.get_ident(), None)
            self._cost.update(tokens, seconds)
            self._wake_owner()

    def _wake_owner(self) -> None:
        """Under the lock. Waking costs time: only where there is work that may begin."""
        if self._next_priority() is not None:
            self._wake.notify()

    def _fail(self, job: Job, reason: Refusal) -> None:
        if not job.done:
            job.fail(reason)
            self._end_probe(job, failed=True)

    def _end_probe(self, job: Job, *, failed: bool) -> None:
        if job.probe:
            seconds = job.forward_seconds if job.request.priority is Priority.QUESTION else 0.0
            self.breaker.finish_probe(seconds, failed=failed)
            self._show_breaker()

    def _drop_dead(self) -> None:
        """Take expired and cancelled jobs out of the queues. Under the lock."""
        now = self._clock()
        for queue in self._queues.values():
            dead = {job for job in queue if not job.is_live(now)}
            if dead:
                for job in dead:
                    self._fail(job, Refusal.TIMEOUT)
                queue.remove(dead)

    def _fail_everything(self) -> None:
        with self._wake:
            flight = self._in_flight.pop(threading.get_ident(), None)
            for job in flight.jobs if flight else ():
                self._fail(job, Refusal.ERROR)
            self._fail_queues()

    def _fail_queues(self) -> None:
        for queue in self._queues.values():
            for job in queue:
                self._fail(job, Refusal.ERROR)
            queue.clear()
        self._instruments.queue_depth.set(0)

    def _waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    def _show_breaker(self) -> None:
        state = self.breaker.state()
        if state is not self._shown:
            self._shown = state
            self._instruments.breaker_state.set(BREAKER_GAUGE[state])


def _tokens(jobs: Iterable[Job]) -> int:
    return sum(job.request.tokens for job in jobs)
