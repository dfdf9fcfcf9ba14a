"""Does a claimed call: the same as the synchronous call, and its answer, success or problem, as that would have given.

What passes by itself (a model that is away, a key that this process does not hold yet) is tried again until it has
passed. What is the call's own fault fails at once. What nobody expected, and the death of a worker, count: after
MOST_ATTEMPTS the call fails.
"""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any

import psycopg
from django.db import InterfaceError, OperationalError
from rest_framework.exceptions import APIException
from rest_framework.settings import api_settings

from keys import steps
from keys.exceptions import KeyConfigurationError, NonceBudgetSpent
from memory import metrics
from memory.documents.shape import documents_from
from memory.exceptions import EmbeddingModelUnavailable, IntegrityFailure, InvalidDocument, UnknownKeyId
from memory.indexing import IndexedDocument, index_documents
from memory.operations import queue
from memory.operations.queue import Claimed, TakenOver
from memory.security import UserHash
from memory.tracing import describe, job_span

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
LONGEST_PAUSE = timedelta(minutes=1)
AWAY = (
    EmbeddingModelUnavailable,
    NonceBudgetSpent,
    UnknownKeyId,
    KeyConfigurationError,
    OperationalError,
    InterfaceError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
)
AT_FAULT = (APIException, InvalidDocument, IntegrityFailure)


class Outcome(StrEnum):
    """What became of an attempt."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    HANDED_BACK = "handed_back"
    TRIED_AGAIN = "tried_again"
    TAKEN_OVER = "taken_over"


class Stopping(Exception):
    """This process ends: the call is handed back."""


class GivenUp(Exception):
    """The call was tried as often as calls are."""


def execute(claimed: Claimed, *, should_stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Do a call, or hand it back. Raises a database error when not even that can be written: then its time runs out."""
    with job_span("job index") as current:
        outcome = _attempt(claimed, should_stop)
        describe(current, outcome=str(outcome), attempts=claimed.attempts)
    metrics.OPERATIONS.labels(outcome).inc()
    return outcome


def _attempt(claimed: Claimed, should_stop: Callable[[], bool]) -> Outcome:
    try:
        if claimed.attempts > MOST_ATTEMPTS:
            raise GivenUp
        _store(claimed, should_stop)
        return Outcome.SUCCEEDED
    except TakenOver:
        return Outcome.TAKEN_OVER
    except Stopping:
        return _hand_back(claimed, Outcome.HANDED_BACK, timedelta(0), forgiven=True)
    except AWAY as away:
        logger.warning("operation waits", extra=_about(claimed, away))
        return _hand_back(claimed, Outcome.TRIED_AGAIN, _pause(claimed), forgiven=True)
    except (*AT_FAULT, GivenUp) as fault:
        return _fail(claimed, fault)
    except Exception as unexpected:
        logger.exception("operation failed, and is tried again", extra=_about(claimed, unexpected))
        return _hand_back(claimed, Outcome.TRIED_AGAIN, _pause(claimed), forgiven=False)


def _store(claimed: Claimed, should_stop: Callable[[], bool]) -> None:
    user_id, documents = claimed.payload["user_id"], documents_from(claimed.payload["body"])

    def progress(done: int, total: int) -> None:
        if should_stop():
            raise Stopping
        queue.follow(claimed, done, total)
        steps.reached("portion embedded")

    def within(cursor: psycopg.Cursor[Any], user_hash: UserHash, indexed: list[IndexedDocument]) -> None:
        queue.finish(cursor, user_hash, claimed, "succeeded", {"documents": [_answer(each) for each in indexed]})
        steps.reached("call stored")

    index_documents(user_id=user_id, documents=documents, progress=progress, within=within)
    steps.reached("call done")


def _answer(indexed: IndexedDocument) -> dict[str, Any]:
    chunk_ids = [str(chunk_id) for chunk_id in indexed.chunk_ids]
    return {"doc_id": indexed.doc_id, "chunk_ids": chunk_ids, "replaced": indexed.replaced}


def _fail(claimed: Claimed, fault: Exception) -> Outcome:
    try:
        queue.fail(claimed, _problem(fault))
    except TakenOver:
        return Outcome.TAKEN_OVER
    steps.reached("call failed")
    return Outcome.FAILED


def _hand_back(claimed: Claimed, outcome: Outcome, pause: timedelta, *, forgiven: bool) -> Outcome:
    try:
        queue.hand_back(claimed, pause=pause, forgiven=forgiven)
    except TakenOver:
        return Outcome.TAKEN_OVER
    steps.reached("call handed back")
    return outcome


def _problem(fault: Exception) -> Mapping[str, Any]:
    """The body of the answer that the synchronous call would have given."""
    handler: Any = api_settings.EXCEPTION_HANDLER
    response = handler(fault, {})
    body: dict[str, Any] = json.loads(response.content)
    return body


def _pause(claimed: Claimed) -> timedelta:
    return min(LONGEST_PAUSE, timedelta(seconds=2**claimed.attempts))


def _about(claimed: Claimed, error: Exception) -> dict[str, str]:
    return {"operation": str(claimed.id), "reason": type(error).__name__}
