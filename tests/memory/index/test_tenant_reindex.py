"""One tenant brought to another model while it is read, written, rotated, moved and erased."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from django.conf import settings as live_settings
from django.db import connection
from django.test import override_settings
from pytest_django import Settings

from keys import steps
from keys.exceptions import LeaseTaken
from keys.generation import generate_key
from keys.leases import hold
from keys.models import Lease
from keys.rotation import rotate
from memory.erasure import delete_document, erase_user
from memory.index import tenant_reindex
from memory.index.recipe import configured, for_new_embeddings, from_stored_embeddings, mixture, recorded
from memory.index.reindexing import reindex_tenant
from memory.index.tail import index_tail
from memory.index.tenant_reindex import NotOurs, Overtaken
from memory.models import MemoryChunk, MemoryTerm, MemoryVector, Tenant
from memory.rls import tenant_transaction
from memory.rotation.encryption_key import EncryptionKeyMover
from memory.rotation.hmac_key import HMACKeyMover
from memory.rotation.integrity import inspect_all
from memory.security import hmac_user
from tests.children import KILLED, die_in_a_child
from tests.factories import ALICE, remember, vector_of
from tests.memory.search.searches import found
from tests.memory.waiting import in_thread

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("readable_names")]

BEFORE, ANOTHER = live_settings.MEMORY_EMBEDDING_MODEL, "another"
TEXTS = [f"memory number {number}" for number in range(7)]


def by_another(texts: list[str]) -> np.ndarray:
    return np.stack([vector_of(f"{ANOTHER}: {text}") for text in texts])


@pytest.fixture(autouse=True)
def embedded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The texts that were embedded by the other model, in small batches."""
    texts: list[str] = []

    def embed(given: list[str]) -> np.ndarray:
        assert not connection.in_atomic_block
        texts.extend(given)
        return by_another(given)

    monkeypatch.setattr(tenant_reindex, "embed_passages", embed)
    monkeypatch.setattr(tenant_reindex, "ROWS_PER_BATCH", 3)
    monkeypatch.setattr(tenant_reindex, "FEW_AT_THE_END", 0)
    yield texts
    steps.observer = None


@pytest.fixture
def stored(settings: Settings) -> str:
    """Alice's hash; she has seven documents by one model, and the settings name another."""
    for number, text in enumerate(TEXTS):
        remember(ALICE, f"doc-{number}", text, metadata={"n": number})
    settings.MEMORY_EMBEDDING_MODEL = ANOTHER
    return hmac_user(ALICE)


def beside(step: str, work: Callable[[], Any], *, times: int = 1) -> None:
    """Have another thread do `work` when the reindex has come to a step, the first few times."""
    left = [step] * times

    def observe(reached: str) -> None:
        if left and reached == left[0]:
            left.pop()
            thread = threading.Thread(target=in_thread, args=(work,))
            thread.start()
            thread.join(30)
            assert not thread.is_alive(), "it waits for a lock"

    steps.observer = observe


def assert_all_by(model: str, texts: list[str] = TEXTS) -> None:
    with tenant_transaction(ALICE):
        assert Tenant.objects.get().recipe == configured().as_text()
        assert set(MemoryVector.objects.values_list("recipe_id", flat=True)) <= {configured().id}
        chunks = list(MemoryChunk.objects.all())
        assert sorted(chunk.text for chunk in chunks) == sorted(texts)
        for chunk in chunks:
            wanted = by_another([chunk.text])[0] if model == ANOTHER else vector_of(chunk.text)
            assert chunk.embedding == pytest.approx(wanted, abs=1e-6), chunk.doc_id
    assert inspect_all().findings == []


def test_a_writer_never_waits_for_the_model(stored: str, embedded: list[str]) -> None:
    """The other thread writes between any read and its write, and is not kept waiting."""
    beside("batch rebuilt", lambda: remember(ALICE, "new", "written meanwhile"), times=3)
    reindex_tenant(stored)
    assert sorted(embedded) == sorted(TEXTS)  # the writer has the new settings, so its row is as wanted
    with tenant_transaction(ALICE):
        new = MemoryChunk.objects.get(doc_id="new")
        assert new.embedding == pytest.approx(vector_of("written meanwhile"), abs=1e-6)
        assert set(MemoryVector.objects.values_list("recipe_id", flat=True)) == {configured().id}


def test_a_row_of_a_process_with_the_old_settings_is_brought_over_too(stored: str) -> None:
    def old_process() -> None:
        with override_settings(MEMORY_EMBEDDING_MODEL=BEFORE):
            remember(ALICE, "new", "written meanwhile")

    beside("batch written", old_process)
    reindex_tenant(stored)
    assert_all_by(ANOTHER, [*TEXTS, "written meanwhile"])


def test_a_document_that_is_replaced_meanwhile_stays_replaced(stored: str) -> None:
    def replace() -> None:
        with override_settings(MEMORY_EMBEDDING_MODEL=BEFORE):
            remember(ALICE, "doc-0", "replaced meanwhile")

    beside("batch rebuilt", replace)
    reindex_tenant(stored)
    assert_all_by(ANOTHER, ["replaced meanwhile", *TEXTS[1:]])


def test_a_chunk_that_is_changed_meanwhile_stays_changed(stored: str) -> None:
    """Its embedding is kept by the change, and so is the old model's: the row is done in the next pass."""

    def change() -> None:
        with tenant_transaction(ALICE):
            chunk = MemoryChunk.objects.get(doc_id="doc-0")
            chunk.metadata = {"n": "changed"}
            chunk.save()

    beside("batch rebuilt", change)
    reindex_tenant(stored)
    assert_all_by(ANOTHER)
    with tenant_transaction(ALICE):
        assert MemoryChunk.objects.get(doc_id="doc-0").metadata == {"n": "changed"}


def test_a_chunk_that_is_deleted_meanwhile_stays_deleted(stored: str) -> None:
    beside("batch rebuilt", lambda: delete_document(user_id=ALICE, doc_id="doc-1"))
    reindex_tenant(stored)
    assert_all_by(ANOTHER, [text for text in TEXTS if text != TEXTS[1]])


def test_searches_leave_out_what_does_not_compare(stored: str) -> None:
    """Between the two models nothing but keywords compares, whoever made the question's vector."""
    seen: list[tuple[Any, ...]] = []

    def search() -> None:
        for model in (None, BEFORE, ANOTHER):
            first, *_ = found(ALICE, "number 5", vector_of(TEXTS[2]), model=model)
            seen.append((first.doc_id, first.score == pytest.approx(0.5)))
        assert inspect_all().findings == []

    beside("batch written", search)
    reindex_tenant(stored)
    assert seen == [("doc-5", True)] * 3
    assert found(ALICE, "", by_another([TEXTS[2]])[0], model=ANOTHER)[0].doc_id == "doc-2"


def test_a_change_of_vectors_and_keywords_goes_one_after_the_other(stored: str, settings: Settings) -> None:
    settings.MEMORY_LEXICAL_LANGUAGE = "german"
    seen = set()

    def search() -> None:
        with tenant_transaction(ALICE):
            now = recorded(Tenant.objects.get().recipe)
        seen.add((bool(now.model), now.language is not None))

    beside("batch written", search, times=6)
    reindex_tenant(stored)
    assert seen == {(False, True), (True, False)}
    assert_all_by(ANOTHER)


def test_an_outgrown_tenant_is_indexed_as_it_goes(stored: str, settings: Settings) -> None:
    settings.MEMORY_EXACT_SCAN_MAX = 2
    assert index_tail(user_hash=stored, limit=100) == len(TEXTS)
    waiting = []

    def look() -> None:
        with tenant_transaction(ALICE):
            waiting.append(MemoryVector.objects.filter(outgrown=False).count())

    beside("batch rebuilt", look, times=3)
    assert reindex_tenant(stored).moved == len(TEXTS)
    assert waiting == [0, 0, 0]
    assert_all_by(ANOTHER)
    with tenant_transaction(ALICE):
        assert not MemoryVector.objects.filter(outgrown=False).exists()
        assert MemoryTerm.objects.values("id").distinct().count() == len(TEXTS)


def test_a_killed_run_goes_on_where_it_was(stored: str, embedded: list[str]) -> None:
    def die(step: str) -> None:
        if step == "batch written":
            raise KeyboardInterrupt

    steps.observer = die
    with pytest.raises(KeyboardInterrupt):
        reindex_tenant(stored)
    steps.observer = None
    first = sorted(embedded)
    embedded.clear()
    assert inspect_all().findings == []
    told: list[int] = []
    assert reindex_tenant(stored, progress=told.append).rows == 4
    assert sorted([*first, *embedded]) == sorted(TEXTS)
    assert sum(told) == len(TEXTS)
    assert_all_by(ANOTHER)


def test_a_run_that_is_killed_holds_the_tenant_until_its_lease_ends(stored: str) -> None:
    """At its third step, after the first batch: what is searched and inspected then is whole."""
    assert die_in_a_child(lambda: reindex_tenant(stored), 3) == KILLED
    assert found(ALICE, "number 5", vector_of(TEXTS[2]))[0].doc_id == "doc-5"
    assert inspect_all().findings == []
    with pytest.raises(LeaseTaken):
        reindex_tenant(stored)
    Lease.objects.all().delete()  # its minutes are over
    assert reindex_tenant(stored).rows == 4
    assert_all_by(ANOTHER)


def test_back_to_the_old_model_only_what_was_done_is_undone(
    stored: str, settings: Settings, embedded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(step: str) -> None:
        if step == "batch written":
            raise KeyboardInterrupt

    steps.observer = die
    with pytest.raises(KeyboardInterrupt):
        reindex_tenant(stored)
    steps.observer = None
    settings.MEMORY_EMBEDDING_MODEL = BEFORE
    monkeypatch.setattr(tenant_reindex, "embed_passages", lambda texts: np.stack([vector_of(text) for text in texts]))
    assert reindex_tenant(stored).rows == 3
    assert_all_by(BEFORE)


def test_an_encryption_rotation_beside_it(stored: str) -> None:
    new = generate_key()
    keys = {
        "MEMORY_ENCRYPTION_KEY": new,
        "MEMORY_ENCRYPTION_KEYS_ACCEPTED": [live_settings.MEMORY_ENCRYPTION_KEY],
    }
    outcome = []

    def turn() -> None:
        outcome.append(rotate(EncryptionKeyMover(), started_by="test"))

    with override_settings(**keys):
        beside("batch rebuilt", turn)
        reindex_tenant(stored)
        (finished,) = outcome
        assert finished.verified, finished.failures
        assert_all_by(ANOTHER)


def test_a_move_to_another_hash_beside_it_and_the_next_run_ends_it(stored: str) -> None:
    old = live_settings.MEMORY_TENANT_HMAC_KEY
    outcome = []

    def move() -> None:
        outcome.append(rotate(HMACKeyMover(), started_by="test"))

    with override_settings(MEMORY_TENANT_HMAC_KEY=generate_key(), MEMORY_TENANT_HMAC_KEYS_ACCEPTED=[old]):
        beside("batch written", move)
        with pytest.raises(NotOurs):
            reindex_tenant(stored)
        steps.observer = None
        (finished,) = outcome
        assert finished.verified, finished.failures
        with tenant_transaction(ALICE):
            assert recorded(Tenant.objects.get().recipe).model == ""
        assert found(ALICE, "number 5", vector_of(TEXTS[2]))[0].doc_id == "doc-5"
        reindex_tenant(hmac_user(ALICE))
        assert_all_by(ANOTHER)


def test_an_erasure_beside_it_leaves_nothing(stored: str) -> None:
    beside("batch rebuilt", lambda: erase_user(user_id=ALICE))
    with pytest.raises(NotOurs):
        reindex_tenant(stored)
    with tenant_transaction(ALICE):
        assert not MemoryChunk.objects.exists()
        assert not MemoryVector.objects.exists()
        assert not Tenant.objects.exists()


def test_a_user_who_starts_again_after_an_erasure_is_left_alone(stored: str) -> None:
    def again() -> None:
        erase_user(user_id=ALICE)
        remember(ALICE, "doc-0", "a new life")

    beside("batch rebuilt", again)
    with pytest.raises(NotOurs):
        reindex_tenant(stored)
    with tenant_transaction(ALICE):
        assert [chunk.text for chunk in MemoryChunk.objects.all()] == ["a new life"]


def test_two_runs_at_once_do_not_do_a_tenant_twice(stored: str) -> None:
    with hold(f"reindex:{stored[:16]}"), pytest.raises(LeaseTaken):
        in_another_process(stored)


def in_another_process(user_hash: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("keys.leases.process_name", lambda: "another")
        reindex_tenant(user_hash)


def test_a_tenant_that_is_written_faster_is_left_searchable(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_reindex, "MOST_PASSES", 2)

    def old_process() -> None:
        with override_settings(MEMORY_EMBEDDING_MODEL=BEFORE):
            remember(ALICE, "doc-6", TEXTS[6])

    beside("batch written", old_process, times=100)
    with pytest.raises(Overtaken):
        reindex_tenant(stored)
    steps.observer = None
    assert found(ALICE, "number 5", vector_of(TEXTS[2]))[0].doc_id == "doc-5"
    reindex_tenant(stored)
    assert_all_by(ANOTHER)


# --- Recipes of several kinds ----------------------------------------------------------------------------------------
def test_a_mixture_says_what_all_of_its_kinds_say(settings: Settings) -> None:
    settings.MEMORY_FILTERABLE_METADATA = ["a", "b"]
    first = configured()
    settings.MEMORY_FILTERABLE_METADATA = ["b", "c"]
    settings.MEMORY_VECTOR_ROTATION = not settings.MEMORY_VECTOR_ROTATION
    both = mixture(first, configured())
    assert (both.labels, both.model, both.language) == (("b",), "", first.language)
    assert recorded(both.as_text()) == both
    assert mixture(both, first) == both
    assert mixture(first, first) == first
    assert len({first.id, configured().id, both.id}) == 3
    assert [both.made(each) for each in (0, first.id, configured().id, both.id, 5)] == [
        first, first, configured(), both, None,
    ]  # fmt: skip


def test_who_may_say_that_a_row_is_as_wanted(settings: Settings) -> None:
    first = configured()
    settings.MEMORY_EMBEDDING_MODEL = ANOTHER
    both = mixture(first, configured())
    assert for_new_embeddings(both) == configured()
    assert for_new_embeddings(first) == first
    assert from_stored_embeddings(both).model == ""
    settings.MEMORY_EMBEDDING_MODEL = "a third"
    assert for_new_embeddings(both) == both
    assert not both.compares_vectors_of(None)
