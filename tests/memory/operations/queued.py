"""What the tests of the queue share: calls of a user, the time of their holder, and what became of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import connections

from keys import steps
from memory.models import MemoryChunk, MemoryOperation
from memory.operations import due
from memory.operations.queue import Operation, accept, get_operation
from memory.operations.worker import Worker
from memory.rls import tenant_transaction
from tests.factories import ALICE, vector_of


def body(doc_id: str, *texts: str) -> dict[str, Any]:
    """A call of one document, with its embeddings."""
    chunks = [{"text": text, "embedding": vector_of(text).tolist()} for text in texts]
    return {"doc_id": doc_id, "chunks": chunks, "metadata": {"n": 1}}


def queue_call(doc_id: str, *texts: str, user_id: str = ALICE) -> UUID:
    """Accept a call; returns its id."""
    forget_the_total()
    return accept(user_id=user_id, body=body(doc_id, *texts)).id


def forget_the_total() -> None:
    due._counted = (float("-inf"), 0)


def work() -> int:
    """Do everything that waits."""
    return Worker().run_until_empty()


def operation(operation_id: UUID, user_id: str = ALICE) -> Operation:
    return get_operation(user_id=user_id, operation_id=operation_id)


def stored(user_id: str = ALICE) -> list[tuple[str, str]]:
    with tenant_transaction(user_id):
        return sorted((chunk.doc_id, chunk.text) for chunk in MemoryChunk.objects.all())


def let_time_run_out(user_id: str = ALICE) -> None:
    """What the last minute did: whoever held a call holds it no more, and what was put off is due."""
    with tenant_transaction(user_id):
        MemoryOperation.objects.exclude(held_until=None).update(held_until="2000-01-01T00:00:00Z")


def dumped() -> list[tuple[Any, ...]]:
    """The queue as a dump has it."""
    with connections["default"].connect_as("backup") as conn, conn.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute("SELECT user_hash, state, payload_cipher, result_cipher, enc_key_id FROM memory_operations")
        return cursor.fetchall()


@contextmanager
def observed(observer: Any) -> Iterator[None]:
    steps.observer = observer
    try:
        yield
    finally:
        steps.observer = None
