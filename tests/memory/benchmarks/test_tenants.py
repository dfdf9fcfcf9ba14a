"""Benchmarks work on users of their own, and leave nobody else's rows behind or gone."""

import numpy as np
import pytest

from memory.benchmarks.tenants import benchmark_user, erase, throwaway_tenants
from memory.documents.document import Chunk, Document
from memory.indexing import index_documents
from memory.listing import list_chunks

pytestmark = pytest.mark.django_db


def remember(user_id: str) -> None:
    vector = np.ones(384, dtype=np.float32)
    index_documents(user_id=user_id, documents=[Document("doc", "notes", (Chunk("text", vector),))])


def chunks(user_id: str) -> int:
    return len(list_chunks(user_id=user_id, limit=10).chunks)


def test_throwaway_tenants_start_and_end_empty() -> None:
    user_id = benchmark_user("test")
    remember(user_id)
    with throwaway_tenants([user_id]):
        assert chunks(user_id) == 0
        remember(user_id)
    assert chunks(user_id) == 0


def test_throwaway_tenants_are_erased_after_an_error() -> None:
    user_id = benchmark_user("test")
    with pytest.raises(ZeroDivisionError), throwaway_tenants([user_id]):
        remember(user_id)
        raise ZeroDivisionError
    assert chunks(user_id) == 0


def test_kept_tenants_stay() -> None:
    user_id = benchmark_user("test")
    with throwaway_tenants([user_id], keep=True):
        remember(user_id)
    assert chunks(user_id) == 1


def test_nobody_elses_rows_are_erased() -> None:
    remember("person:5")
    with pytest.raises(ValueError, match="Only benchmark users"):
        erase([benchmark_user(1), "person:5"])
    assert chunks("person:5") == 1
