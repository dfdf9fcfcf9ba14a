"""Forgetting, with a receipt that is counted and not assumed."""

from uuid import uuid4

import pytest

from memory.erasure import delete_chunk, delete_document, erase_user
from memory.models import MemoryChunk, MemoryVector, Tenant
from memory.rls import tenant_transaction
from tests.factories import ALICE, BOB, recall, remember, texts

pytestmark = pytest.mark.django_db


def left(user_id: str) -> tuple[int, int, int]:
    with tenant_transaction(user_id):
        tenant = Tenant.objects.first()
        return MemoryChunk.objects.count(), MemoryVector.objects.count(), tenant.chunk_count if tenant else -1


def test_a_chunk_goes_with_its_vector() -> None:
    first, _ = remember(ALICE, "doc", "one", "two")
    assert delete_chunk(user_id=ALICE, chunk_id=first) == 1
    assert left(ALICE) == (1, 1, 1) and texts(recall(ALICE, "one")) == ["two"]
    assert delete_chunk(user_id=ALICE, chunk_id=first) == 0


def test_another_users_chunk_is_as_good_as_missing() -> None:
    (chunk_id,) = remember(ALICE, "doc", "one")
    assert delete_chunk(user_id=BOB, chunk_id=chunk_id) == delete_chunk(user_id=BOB, chunk_id=uuid4()) == 0
    assert left(ALICE) == (1, 1, 1)


def test_a_document_goes_whole() -> None:
    remember(ALICE, "doc", "one", "two")
    remember(ALICE, "other", "three")
    remember(BOB, "doc", "four")
    assert delete_document(user_id=ALICE, doc_id="doc") == 2
    assert delete_document(user_id=ALICE, doc_id="doc") == 0
    assert left(ALICE) == (1, 1, 1) and left(BOB) == (1, 1, 1)


def test_erasing_a_user_leaves_nothing_of_theirs_and_all_of_others() -> None:
    remember(ALICE, "doc", "one", "two")
    remember(BOB, "doc", "three")
    receipt = erase_user(user_id=ALICE)
    expected = {"memory_chunks": 2, "memory_vectors": 2, "tenants": 1}
    assert {table: receipt.deleted[table] for table in expected} == expected
    assert set(receipt.remaining.values()) == {0} and receipt.remaining.keys() == receipt.deleted.keys()
    assert left(ALICE) == (0, 0, -1) and left(BOB) == (1, 1, 1)


def test_erasing_nobody_is_an_honest_zero_and_the_user_may_come_back() -> None:
    assert set(erase_user(user_id=ALICE).deleted.values()) == {0}
    remember(ALICE, "doc", "again")
    assert texts(recall(ALICE, "again")) == ["again"]
