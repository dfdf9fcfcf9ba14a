"""Changes beside other writers: another change, a deletion, a replacement, a reindex, a rotation of either key."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from django.db import connection

from keys import nonces, steps
from keys.generation import generate_key
from keys.keyring import get_keyring
from keys.movers import Mover
from keys.pace import Pace
from keys.rotation import rotate
from memory.erasure import delete_chunk, erase_user
from memory.exceptions import ChunkNotFound
from memory.index import tenant_reindex
from memory.index.recipe import configured, recorded
from memory.index.reindexing import reindex_tenant
from memory.listing import list_chunks
from memory.models import MemoryChunk, MemoryVector, Tenant
from memory.rls import tenant_transaction
from memory.rotation.encryption_key import EncryptionKeyMover
from memory.rotation.hmac_key import HMACKeyMover
from memory.rotation.integrity import inspect_all
from memory.rotation.resealing import reseal_batch, sealed_tables
from memory.security import hmac_user
from memory.verbs import patching
from tests.factories import ALICE, recall, remember, texts, vector_of
from tests.memory.rotation import hmac_rotating, rotating
from tests.memory.verbs.changes import Embedder, change, change_document, chunk
from tests.memory.waiting import in_thread, wait_until_done_or_waiting

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _unobserved() -> Iterator[None]:
    nonces.forget()
    yield
    steps.observer = None


def nothing_amiss() -> None:
    assert inspect_all().findings == []
    with tenant_transaction(ALICE):
        assert MemoryChunk.objects.count() == MemoryVector.objects.count() == Tenant.objects.get().chunk_count


# --- Another change --------------------------------------------------------------------------------------------------
def test_no_transaction_is_open_while_a_text_is_embedded(embedder: Embedder) -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello")
    embedder.meanwhile = lambda: open_then.append(connection.in_atomic_block)
    open_then: list[bool] = []
    change(chunk_id, text="new")
    assert open_then == [False]


def test_metadata_that_changes_while_a_text_is_embedded_is_kept(embedder: Embedder) -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello", metadata={"a": 1})
    embedder.meanwhile = lambda: change(chunk_id, metadata={"b": 2, "a": None})
    after = change(chunk_id, text="new", metadata={"c": 3})
    assert (after.text, after.metadata) == ("new", {"b": 2, "c": 3})
    assert after == chunk(chunk_id)
    nothing_amiss()


def test_two_new_texts_leave_one_with_its_own_embedding(embedder: Embedder) -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello")

    def once() -> None:
        embedder.meanwhile = lambda: None
        change(chunk_id, text="passport", metadata={"their": 1})

    embedder.meanwhile = once
    change(chunk_id, text="violin", metadata={"our": 1})
    assert (chunk(chunk_id).text, chunk(chunk_id).metadata) == ("violin", {"their": 1, "our": 1})
    assert recall(ALICE, "violin")[0].retrieval_score == pytest.approx(1.5, abs=1e-6)
    nothing_amiss()


def test_a_document_split_anew_keeps_what_a_chunk_was_given_meanwhile(embedder: Embedder) -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello")
    embedder.meanwhile = lambda: change(chunk_id, metadata={"b": 2})
    change_document("doc", {"text": "another"})
    assert (chunk(chunk_id).text, chunk(chunk_id).metadata) == ("another", {"b": 2})
    nothing_amiss()


@pytest.mark.parametrize(
    "taken_away",
    [
        lambda chunk_id: delete_chunk(user_id=ALICE, chunk_id=chunk_id),
        lambda chunk_id: remember(ALICE, "doc", "replaced"),
        lambda chunk_id: erase_user(user_id=ALICE),
    ],
    ids=["deleted", "replaced", "erased"],
)
def test_what_is_taken_away_while_its_text_is_embedded_stays_away(
    taken_away: Callable[[Any], Any], embedder: Embedder
) -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello")
    embedder.meanwhile = lambda: taken_away(chunk_id)
    with pytest.raises(ChunkNotFound):
        change(chunk_id, text="new")
    assert texts(recall(ALICE, "new")) in ([], ["replaced"])


def test_many_changes_at_once_lose_nothing(embedder: Embedder) -> None:
    ids = remember(ALICE, "doc", "one", "two")

    def work(number: int) -> None:
        change(ids[number % 2], metadata={f"own {number}": number}, **({"text": f"{number}"} if number < 2 else {}))
        change_document("doc", {"metadata": {f"all {number}": number}})

    threads = [threading.Thread(target=in_thread, args=[work], kwargs={"number": n}) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everywhere = {f"all {number}": number for number in range(8)}
    for place, chunk_id in enumerate(ids):
        own = {f"own {number}": number for number in range(8) if number % 2 == place}
        assert (chunk(chunk_id).text, chunk(chunk_id).metadata) == (str(place), everywhere | own)
    nothing_amiss()


# --- A reindex -------------------------------------------------------------------------------------------------------
def by_another(texts: list[str]) -> np.ndarray:
    return np.stack([vector_of(f"another: {text}") for text in texts])


def run_beside(step: str, work: Callable[[], Any], job: Callable[[], Any]) -> Any:
    """Do `job`, and when it comes to a step, `work` in a thread, as far as it gets."""
    thread = threading.Thread(target=in_thread, args=[work])

    def observe(reached: str) -> None:
        if reached == step:
            steps.observer = None
            thread.start()
            wait_until_done_or_waiting(thread)

    steps.observer = observe
    done = job()
    assert steps.observer is None, "The step was never reached."
    thread.join()
    return done


CHANGES = {"metadata": {"metadata": {"mood": "good"}}, "text": {"text": "changed", "metadata": {"mood": "good"}}}


@pytest.mark.parametrize("patch", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("step", ["reindex begun", "batch rebuilt", "batch written", "recipe recorded"])
def test_beside_a_reindex(step: str, patch: dict[str, Any], monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    ids = [remember(ALICE, f"doc-{number}", f"text {number}", metadata={"mood": "bad"})[0] for number in range(7)]
    settings.MEMORY_EMBEDDING_MODEL, settings.MEMORY_FILTERABLE_METADATA = "another", ["mood"]
    monkeypatch.setattr(tenant_reindex, "ROWS_PER_BATCH", 3)
    monkeypatch.setattr(tenant_reindex, "embed_passages", by_another)
    monkeypatch.setattr(patching, "embed_passages", by_another)
    run_beside(
        step,
        lambda: [change(chunk_id, **patch) for chunk_id in (ids[0], ids[6])],
        lambda: reindex_tenant(hmac_user(ALICE)),
    )
    with tenant_transaction(ALICE):
        assert recorded(Tenant.objects.get().recipe) == configured()
        for stored in MemoryChunk.objects.all():
            assert stored.embedding == pytest.approx(by_another([stored.text])[0])
    assert {match.id for match in recall(ALICE, "text", metadata={"mood": "good"})} == {ids[0], ids[6]}
    assert len(recall(ALICE, "text", metadata={"mood": "bad"})) == 5
    nothing_amiss()


def test_a_reindex_while_a_text_is_embedded(embedder: Embedder, settings: Any) -> None:
    ids = remember(ALICE, "doc", "one", "two")
    settings.MEMORY_FILTERABLE_METADATA = ["mood"]
    embedder.meanwhile = lambda: reindex_tenant(hmac_user(ALICE))
    change(ids[0], text="new", metadata={"mood": "good"})
    assert texts(recall(ALICE, "new", metadata={"mood": "good"})) == ["new"]
    nothing_amiss()


# --- A rotation of either key ----------------------------------------------------------------------------------------
def rotate_with(mover: Mover, step: str, work: Callable[[], Any]) -> None:
    """Rotate, and at one step do `work` beside it."""
    finished = run_beside(step, work, lambda: rotate(mover, started_by="test", pace=Pace(batch=3)))
    assert finished.verified, finished.failures


def resealing() -> dict[str, Any]:
    """What a rotation passes for a batch of Alice's chunks, waiting for nobody."""
    return {
        "tenant": hmac_user(ALICE),
        "table": sealed_tables()["memory_chunks"],
        "after": None,
        "limit": 9,
        "wait": False,
    }


@pytest.mark.parametrize("patch", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("step", ["rows locked", "rows updated", "batch re-sealed", "batch verified"])
def test_beside_a_rotation_of_the_encryption_key(step: str, patch: dict[str, Any], embedder: Embedder) -> None:
    ids = [remember(ALICE, f"doc-{number}", f"text {number}", metadata={"n": number})[0] for number in range(7)]
    with rotating.promoted() as (_, new):

        def beside() -> None:
            for chunk_id in ids[::3]:
                change(chunk_id, **patch)

        rotate_with(EncryptionKeyMover(), step, beside)
        assert rotating.key_ids() == {new.key_id}
        assert all(rotating.opens(new, user_hash, blob) for user_hash, blob in rotating.all_blobs())
        for number, chunk_id in enumerate(ids):
            expected = {"n": number} | ({"mood": "good"} if number % 3 == 0 else {})
            assert chunk(chunk_id).metadata == expected
        nothing_amiss()


@pytest.mark.parametrize("patch", CHANGES.values(), ids=CHANGES)
def test_a_process_that_still_seals_with_the_old_key_mixes_no_row(
    patch: dict[str, Any], embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation comes by when the change has read its row: it passes over it, and takes it the next time."""
    (chunk_id,) = remember(ALICE, "doc", "hello", metadata={"a": 1})
    new, real, resealed = generate_key(), patching._store, []

    def store_after_a_rotation(*args: Any) -> Any:
        with rotating.promoted(new), ThreadPoolExecutor() as other:
            batch = other.submit(in_thread, reseal_batch, **resealing())
            resealed.append(batch.result().done)
        return real(*args)

    monkeypatch.setattr(patching, "_store", store_after_a_rotation)
    change(chunk_id, **patch)
    assert resealed == [0]
    with tenant_transaction(ALICE):
        row = MemoryChunk.objects.get()
        blobs = [row.text_cipher, row.meta_cipher, row.emb_cipher]
    old = get_keyring().sealing
    assert row.enc_key_id == old.key_id
    assert all(rotating.opens(old, row.user_hash, blob) for blob in blobs)
    with rotating.promoted(new):
        assert reseal_batch(**resealing()).done == 1
        assert chunk(chunk_id).metadata == {"a": 1, "mood": "good"}


@pytest.mark.parametrize("patch", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(
    ("user_id", "step"),
    [
        (hmac_rotating.LARGE, "window copied"),
        (hmac_rotating.LARGE, "caught up"),
        (hmac_rotating.LARGE, "last changes copied"),
        (hmac_rotating.SMALL, "small tenant's rows read"),
        (hmac_rotating.SMALL, "small tenant's new rows inserted"),
    ],
)
def test_beside_a_rotation_of_the_hmac_key(user_id: str, step: str, patch: dict[str, Any], embedder: Embedder) -> None:
    hmac_rotating.store_all()
    first = min(list_chunks(user_id=user_id, limit=100).chunks, key=lambda stored: stored.id)
    with hmac_rotating.promoted():
        rotate_with(HMACKeyMover(), step, lambda: change(first.id, user_id=user_id, **patch))
        hmac_rotating.assert_all_moved()
        after = chunk(first.id, user_id=user_id)
        assert (after.metadata, after.created_at) == ({"n": 0, "mood": "good"}, first.created_at)
        assert after.text == patch.get("text", first.text)
        hmac_rotating.assert_served(user_id, [after.text, *hmac_rotating.MEMORIES[user_id][1:]])
        assert inspect_all().findings == []
