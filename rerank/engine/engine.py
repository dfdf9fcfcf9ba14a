"""Micro-batching in front of a backend: callers submit jobs, owner threads score them.

    submit ─▶ bounded queue ─▶ owner: drop the dead ─▶ take whole jobs up to 32 pairs ─▶ encode ─▶ forward(s) ─▶ futures

Batches never wait for company: an owner takes what is there. A job's scores are written by candidate index into the job
itself, so nothing a batch shares can carry a score to another request.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rerank import metrics
from rerank.backends import Backend, EncodedPair
from rerank.backends.text_cleaning import clean, estimate_tokens
from rerank.engine.batching import plan_forwards
from rerank.engine.breaker import CircuitBreaker, Permit, State
from rerank.engine.cost import CostEstimate
from rerank.engine.failures import describe, is_timeout
from rerank.engine.jobs import Job
from rerank.outcomes import Skipped, SkipReason

logger = logging.getLogger(__name__)

# A request is refused when its predicted end leaves less than this margin of its time: machines are noisy. Without the
# prediction an overloaded queue hands over each request just before its deadline, to be finished after it.
PREDICTED_SHARE_OF_TIMEOUT = 0.8
RESTARTS = 1
BREAKER_GAUGE = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """`pairs` and padded `tokens` a forward, `queue` in jobs, tokens of a pair and of its query."""

    pairs: int = 32
    tokens: int = 16384
    queue: int = 64
    pair_tokens: int = 512
    query_tokens: int = 64


class Engine:
    """Thread-safe. Start it in the process that serves, never before a fork."""

    def __init__(
        self,
        backend: Backend,
        breaker: CircuitBreaker,
        limits: EngineLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend = backend
        self.breaker = breaker
        self.limits = limits or EngineLimits()
        self._clock = clock
        self._wake = threading.Condition()
        self._queue: deque[Job] = deque()
        self._in_flight: dict[int, tuple[float, list[Job]]] = {}  # by thread: since when, what
        self._forwards: dict[int, float] = {}  # by thread: since when
        self._cost = CostEstimate()
        self._stopping = False
        self._threads: list[threading.Thread] = []

    # --- For callers ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        for number in range(self.backend.workers):
            thread = threading.Thread(target=self._supervise, name=f"rerank-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Fail what waits, let running forwards end for up to `timeout` seconds. Further submits raise."""
        with self._wake:
            self._stopping = True
            self._fail_queue(SkipReason.ERROR)
            self._wake.notify_all()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not self.is_alive():
            self.backend.close()

    def submit(self, query: object, passages: Sequence[object], timeout: float) -> Job:
        """Queue one request of at least one passage; `timeout` in seconds.

        Raises Skipped at once: breaker_open, queue_full, predicted_late, or error once stopped. An open breaker that is
        due for a probe makes a shadow of this request its probe.
        """
        if self._is_stuck():
            self.breaker.trip("a forward never returned")
        permit = self.breaker.admit()
        self._show_breaker()
        if permit is Permit.PROBE:
            self._probe(query, passages)
        if permit is not Permit.RUN:
            raise Skipped(SkipReason.BREAKER_OPEN)
        return self._enqueue(self._job(query, passages, timeout), timeout)

    def is_alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def heartbeat(self) -> dict[str, object]:
        """Is the loop alive, how long does the oldest running forward run (seconds), how many jobs wait."""
        oldest = min(list(self._forwards.values()), default=None)
        return {
            "alive": self.is_alive(),
            "forward_seconds": 0.0 if oldest is None else round(self._clock() - oldest, 3),
            "queued": len(self._queue),
        }

    # --- Admission --------------------------------------------------------------------------------------------------

    def _job(self, query: object, passages: Sequence[object], timeout: float, *, probe: bool = False) -> Job:
        limits = self.limits
        now = self._clock()
        query = clean(query, limits.query_tokens)
        texts = [clean(passage, limits.pair_tokens) for passage in passages]
        tokens = sum(estimate_tokens(len(query) + len(text), limits.pair_tokens) for text in texts)
        return Job(query, texts, enqueued=now, deadline=now + timeout, tokens=tokens, probe=probe)

    def _enqueue(self, job: Job, timeout: float) -> Job:
        with self._wake:
            if self._stopping:
                raise Skipped(SkipReason.ERROR)
            self._drop_dead()
            if len(self._queue) >= self.limits.queue:
                raise Skipped(SkipReason.QUEUE_FULL)
            if not job.probe and self._predicted_seconds(job) > PREDICTED_SHARE_OF_TIMEOUT * timeout:
                raise Skipped(SkipReason.PREDICTED_LATE)
            self._queue.append(job)
            metrics.QUEUE_DEPTH.set(len(self._queue))
            self._wake.notify()
        return job

    def _predicted_seconds(self, job: Job) -> float:
        """Until `job` would be done. An idle engine takes any request of ordinary size: slowness is the breaker's."""
        if not self._queue and len(self._in_flight) < self.backend.workers and len(job.passages) <= self.limits.pairs:
            return 0.0
        now = self._clock()
        running = sum(
            max(0.0, self._cost.seconds(sum(each.tokens for each in jobs)) - (now - since))
            for since, jobs in self._in_flight.values()
        )
        waiting = self._cost.seconds(sum(each.tokens for each in self._queue))
        return (running + waiting) / self.backend.workers + self._cost.seconds(job.tokens)

    def _probe(self, query: object, passages: Sequence[object]) -> None:
        deadline = self.breaker.policy.probe_deadline
        try:
            self._enqueue(self._job(query, passages[: self.limits.pairs], deadline, probe=True), deadline)
        except Skipped:
            self.breaker.abandon_probe()

    def _is_stuck(self) -> bool:
        """Whether every owner sits in a forward that is older than any probe may be."""
        started = list(self._forwards.values())
        limit = self._clock() - self.breaker.policy.probe_deadline
        return len(started) >= self.backend.workers and max(started) < limit

    # --- The owner threads ------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        for _ in range(1 + RESTARTS):
            try:
                self._run()
                return
            except Exception as error:
                logger.error("The rerank loop died of %s", describe(error))
                self._fail_everything()
        self.breaker.trip("the rerank loop died twice", hold=True)
        with self._wake:
            self._stopping = True
            self._fail_queue(SkipReason.ERROR)

    def _run(self) -> None:
        while jobs := self._take():
            started, step = self._clock(), self.limits.pairs
            for start in range(0, max(len(job.passages) for job in jobs), step):
                self._serve(jobs, slice(start, start + step))
            self._settle(jobs, started)

    def _take(self) -> list[Job]:
        """Block until there is work; whole jobs up to a batch. Nothing once stopped."""
        with self._wake:
            self._drop_dead()
            while not self._queue and not self._stopping:
                self._wake.wait()
                self._drop_dead()
            if self._stopping:
                return []
            jobs = [self._queue.popleft()]
            while self._queue and self._fits(jobs, self._queue[0]):
                jobs.append(self._queue.popleft())
            self._in_flight[threading.get_ident()] = (self._clock(), jobs)
            metrics.QUEUE_DEPTH.set(len(self._queue))
        for job in jobs:
            metrics.QUEUE_SECONDS.observe(self._clock() - job.enqueued)
        return jobs

    def _fits(self, jobs: Sequence[Job], following: Job) -> bool:
        pairs = sum(len(job.passages) for job in jobs) + len(following.passages)
        return self.backend.mixes_requests and pairs <= self.limits.pairs

    def _serve(self, jobs: Sequence[Job], part: slice) -> None:
        """Encode and score the passages `part` of each job."""
        work = [(job, index, pair) for job in jobs for index, pair in enumerate(self._encode(job, part), part.start)]
        lengths = [pair.tokens for _, _, pair in work]
        for positions in plan_forwards(lengths, max_pairs=self.limits.pairs, max_tokens=self.limits.tokens):
            self._score([work[position] for position in positions])

    def _encode(self, job: Job, part: slice) -> list[EncodedPair]:
        passages = job.passages[part]
        if not passages or not job.is_live(self._clock()):
            return []
        started = self._clock()
        try:
            return self.backend.encode(job.query, passages)
        except Exception as error:
            logger.error("Tokenising a rerank request failed: %s", describe(error))
            self._fail(job, SkipReason.ERROR)
            return []
        finally:
            metrics.TOKENISE_SECONDS.observe(self._clock() - started)

    def _score(self, work: Sequence[tuple[Job, int, EncodedPair]]) -> None:
        now = self._clock()
        work = [item for item in work if item[0].is_live(now)]
        if not work:
            return
        timeout = min(job.deadline for job, _, _ in work) - now
        try:
            scores = self._forward([pair for _, _, pair in work], timeout)
        except Skipped as skip:
            for job, _, _ in work:
                self._fail(job, skip.reason)
            return
        elapsed = self._clock() - now
        for job in {id(job): job for job, _, _ in work}.values():
            job.forward_seconds += elapsed
        for (job, candidate, _), score in zip(work, scores.tolist(), strict=True):
            if np.isfinite(score):
                job.scores[candidate] = score
            else:
                self._fail(job, SkipReason.NAN_SCORES)

    def _forward(self, pairs: Sequence[EncodedPair], timeout: float) -> np.ndarray:
        """Raw logits (len(pairs),). Tells breaker and metrics; raises Skipped."""
        started = self._forwards[threading.get_ident()] = self._clock()
        healthy = False
        try:
            scores = np.asarray(self.backend.forward(pairs, timeout), dtype=np.float64)
            healthy = scores.shape == (len(pairs),) and bool(np.isfinite(scores).all())
        except Exception as error:
            logger.error("A rerank forward failed: %s", describe(error))
            raise Skipped(SkipReason.TIMEOUT if is_timeout(error) else SkipReason.ERROR) from error
        finally:
            self._forwards.pop(threading.get_ident(), None)
            self._record(pairs, self._clock() - started, healthy)
        if scores.shape != (len(pairs),):
            logger.error("The reranker gave %s scores for %d pairs", scores.shape, len(pairs))
            raise Skipped(SkipReason.ERROR)
        return scores

    def _record(self, pairs: Sequence[EncodedPair], seconds: float, healthy: bool) -> None:
        self.breaker.record(seconds, failed=not healthy)
        self._show_breaker()
        metrics.FORWARD_SECONDS.observe(seconds)
        metrics.BATCH_PAIRS.observe(len(pairs))
        metrics.BATCH_TOKENS.observe(len(pairs) * max(pair.tokens for pair in pairs))

    # --- Ends -------------------------------------------------------------------------------------------------------

    def _settle(self, jobs: Sequence[Job], started: float) -> None:
        now = self._clock()
        whole = all(job.is_live(now) for job in jobs)
        with self._wake:
            self._in_flight.pop(threading.get_ident(), None)
            if whole:
                self._cost.update(sum(job.tokens for job in jobs), now - started)
        for job in jobs:
            if now > job.deadline:
                self._fail(job, SkipReason.TIMEOUT)
            elif not job.done:
                job.finish()
                self._end_probe(job, failed=False)

    def _fail(self, job: Job, reason: SkipReason) -> None:
        if not job.done:
            job.fail(reason)
            self._end_probe(job, failed=True)

    def _end_probe(self, job: Job, *, failed: bool) -> None:
        if job.probe:
            self.breaker.finish_probe(job.forward_seconds, failed=failed)
            self._show_breaker()

    def _drop_dead(self) -> None:
        """Take expired and cancelled jobs out of the queue. Under the lock."""
        now = self._clock()
        if all(job.is_live(now) for job in self._queue):
            return
        for job in self._queue:
            if now > job.deadline:
                self._fail(job, SkipReason.TIMEOUT)
        self._queue = deque(job for job in self._queue if not job.done)

    def _fail_everything(self) -> None:
        with self._wake:
            _, jobs = self._in_flight.pop(threading.get_ident(), (0.0, []))
            for job in jobs:
                self._fail(job, SkipReason.ERROR)
            self._fail_queue(SkipReason.ERROR)

    def _fail_queue(self, reason: SkipReason) -> None:
        for job in self._queue:
            self._fail(job, reason)
        self._queue.clear()
        metrics.QUEUE_DEPTH.set(0)

    def _show_breaker(self) -> None:
        metrics.BREAKER_STATE.set(BREAKER_GAUGE[self.breaker.snapshot().state])
