"""Texts into vectors, by the model that the settings name, through the one engine that it has in a process."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from django.conf import settings

from inference.engine.backlog import Backlog
from inference.engine.batching import plan_forwards
from inference.engine.engine import Engine
from inference.engine.jobs import Encoded, Priority, Refusal, Refused, Request
from inference.engine.runtime import Status
from memory.exceptions import EmbeddingModelUnavailable, NoEmbedding
from memory.index import embedding_metrics as metrics
from memory.index import embedding_runtime
from memory.index.embedders import Embedder, Kind
from memory.tenancy.open_doors import bound_user_id

# Seconds for one slice of passages, waiting included. Far more than any takes: a model that needs longer hangs.
SLICE_SECONDS = 60.0
TOKENISED_TOGETHER = 64  # texts, unless a forward takes more

REASONS = {
    Refusal.TIMEOUT: NoEmbedding.TIMEOUT,
    Refusal.PREDICTED_LATE: NoEmbedding.TIMEOUT,
    Refusal.BREAKER_OPEN: NoEmbedding.BREAKER_OPEN,
    Refusal.QUEUE_FULL: NoEmbedding.QUEUE_FULL,
    Refusal.ERROR: NoEmbedding.ERROR,
    Refusal.NOT_FINITE: NoEmbedding.ERROR,
}

backlog = Backlog(lambda: settings.MEMORY_EMBED_QUEUE)


def embed_passages(texts: Sequence[str]) -> np.ndarray:
    """Embeddings of texts to be stored: float32, shape (len(texts), MEMORY_EMBEDDING_DIM), unit length.

    Waits for the model, for turns with others, and for its own. Raises EmbeddingModelUnavailable, whose `reason` is
    `embedding_queue_full` where so many passages of others wait that these should come again later.
    """
    return _embedded(texts, Kind.PASSAGE)


def embed_questions(texts: Sequence[str]) -> np.ndarray:
    """Embeddings of many questions that nobody waits for, as an evaluation has them; as `embed_passages` otherwise."""
    return _embedded(texts, Kind.QUESTION)


def _embedded(texts: Sequence[str], kind: Kind) -> np.ndarray:
    """Both of the above: what differs is the prompt that the model wants, never the place in the queue."""
    vectors = np.empty((len(texts), settings.MEMORY_EMBEDDING_DIM), dtype=np.float32)
    if not texts:
        return vectors
    engine = _engine_now()
    places: list[list[int]] = []
    with _refusals("passage"), backlog.announced(len(texts)):
        slices = _slices(engine.backend, texts, kind, places)
        for number, rows in enumerate(engine.run(slices, SLICE_SECONDS, here=engine.backend.keeps_deadlines)):
            vectors[places[number]] = rows
    return vectors


def embed_query(text: str) -> np.ndarray:
    """The embedding of a query: float32, shape (MEMORY_EMBEDDING_DIM,), unit length, within MEMORY_EMBED_TIMEOUT_MS.

    Raises EmbeddingModelUnavailable; its `reason` says why there is none.
    """
    deadline = time.monotonic() + settings.MEMORY_EMBED_TIMEOUT_MS / 1000
    with _refusals("question"):
        engine = _engine_by(deadline)
        embedder = engine.backend
        items = embedder.encode([text], Kind.QUESTION)
        request = Request(1, items.__getitem__, items[0].tokens, Priority.QUESTION, _submitter())
        job = engine.submit(request, max(0.0, deadline - time.monotonic()), here=embedder.keeps_deadlines)
        (vector,) = engine.wait(job)
    return np.asarray(vector)


def _slices(embedder: Embedder, texts: Sequence[str], kind: Kind, places: list[list[int]]) -> Iterator[Request]:
    """Requests that embed all texts, one forward each; `places` gets the positions of each one's texts.

    Of similar length together, and tokenised as they are needed: that too takes a while for thousands.
    """
    limits, submitter = embedder.limits, _submitter()
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    step = max(TOKENISED_TOGETHER, limits.items)
    for start in range(0, len(order), step):
        group = order[start : start + step]
        items = embedder.encode([texts[place] for place in group], kind)
        lengths = [item.tokens for item in items]
        for part in plan_forwards(lengths, max_items=limits.items, max_tokens=limits.slice_tokens):
            places.append([group[each] for each in part])
            yield _passages([items[each] for each in part], submitter)


def _passages(items: Sequence[Encoded], submitter: object) -> Request:
    tokens = sum(item.tokens for item in items)
    return Request(len(items), items.__getitem__, tokens, Priority.PASSAGE, submitter)


def _submitter() -> object:
    """Who takes turns with others: the user whose call this is; in a command, this thread."""
    return bound_user_id() or threading.get_ident()


def _engine_now() -> Engine[Embedder]:
    """The engine, once it is loaded. Raises EmbeddingModelUnavailable; soon, where it could not be a moment ago."""
    runtime = embedding_runtime.current()
    if runtime.engine is None and runtime.has_failed_lately():
        raise EmbeddingModelUnavailable(runtime.detail)
    return runtime.load_now()


def _engine_by(deadline: float) -> Engine[Embedder]:
    """The engine, if it is loaded by then. Raises EmbeddingModelUnavailable."""
    runtime = embedding_runtime.current()
    if runtime.engine is None:
        runtime.wait_while_loading(max(0.0, deadline - time.monotonic()))
    if runtime.engine is not None:
        return runtime.engine
    if runtime.status is Status.UNAVAILABLE:
        raise EmbeddingModelUnavailable(runtime.detail)
    raise EmbeddingModelUnavailable("The embedding model is still being loaded.", NoEmbedding.LOADING)


@contextmanager
def _refusals(kind: str) -> Iterator[None]:
    """Turn what an engine refuses into the memory's own error, and count it."""
    try:
        yield
    except Refused as refused:
        reason = REASONS[refused.reason]
        metrics.REFUSALS.labels(kind, reason.value).inc()
        raise EmbeddingModelUnavailable("The embedding model gave no vector.", reason) from None
