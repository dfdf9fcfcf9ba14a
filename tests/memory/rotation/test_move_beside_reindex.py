"""The move to another hash beside a reindex to another embedding model: every embedding is its recorded model's."""

import threading

import numpy as np
import pytest
from django.db import connection
from django.test import override_settings

from keys import steps
from keys.pace import Pace
from keys.rotation import rotate
from memory.index import reindexing, tenant_reindex
from memory.index.recipe import recorded
from memory.models import MemoryChunk, Tenant
from memory.rls import tenant_transaction
from memory.rotation.hmac_key import HMACKeyMover
from memory.rotation.integrity import inspect_all
from memory.security import user_hashes
from tests.factories import vector_of
from tests.memory.rotation.hmac_rotating import BATCH, LARGE, SMALL, assert_all_moved, observing, promoted, store_all
from tests.memory.waiting import wait_until_done_or_waiting

pytestmark = pytest.mark.django_db(transaction=True)

ANOTHER = "another"


class Reindex(threading.Thread):
    """Brings one user's rows, as they lie under the old key, to another embedding model."""

    def __init__(self, user_id: str) -> None:
        super().__init__()
        self._user_hash = str(user_hashes(user_id)[-1])

    def run(self) -> None:
        try:
            with override_settings(MEMORY_EMBEDDING_MODEL=ANOTHER):
                reindexing.reindex_tenant(self._user_hash)
        finally:
            connection.close()


def embedded_by_another(texts: list[str]) -> np.ndarray:
    return np.stack([vector_of(f"{ANOTHER}: {text}") for text in texts])


def assert_embedded_as_recorded(user_id: str) -> None:
    with tenant_transaction(user_id):
        model = recorded(Tenant.objects.get().recipe).model
        for chunk in MemoryChunk.objects.all():
            wanted = embedded_by_another([chunk.text])[0] if model == ANOTHER else vector_of(chunk.text)
            assert chunk.embedding == pytest.approx(wanted, abs=1e-6), (model, chunk.doc_id)


@pytest.mark.parametrize(
    "user_id, step",
    [
        (LARGE, "window copied"),
        (LARGE, "caught up"),
        (LARGE, "last changes copied"),
        (SMALL, "small tenant's rows read"),
        (SMALL, "small tenant's new rows inserted"),
    ],
)
def test_a_reindex_in_the_middle(user_id: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_reindex, "embed_passages", embedded_by_another)
    store_all()
    with promoted():
        beside = Reindex(user_id)

        def reindex(reached: str) -> None:
            if reached == step:
                steps.observer = None
                beside.start()
                wait_until_done_or_waiting(beside)

        with observing(reindex):
            finished = rotate(HMACKeyMover(), started_by="test", pace=Pace(batch=BATCH))
        beside.join()
        assert finished.verified, finished.failures
        assert_all_moved()
        assert_embedded_as_recorded(user_id)
        assert inspect_all().findings == []
