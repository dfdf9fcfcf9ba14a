"""Changing what rows are found by, while they are found."""

import io

import numpy as np
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from keys import steps
from memory.index import tenant_reindex
from memory.index.recipe import configured
from memory.index.reindexing import reindex_tenant
from memory.index.stale_settings import check_stale_indexes, warn_of_stale_indexes
from memory.models import MemoryChunk, MemoryTerm, MemoryVector, Tenant
from memory.rls import tenant_transaction
from tests.factories import drawn_documents, store_drawn
from tests.memory.search.searches import found

ALICE, BOB = "person:1", "person:2"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def reindex(*options):
    out = io.StringIO()
    call_command("reindex", *options, stdout=out, verbosity=0)
    return out.getvalue()


def recipes():
    return [recipe_of(user) for user in (ALICE, BOB)]


def recipe_of(user_id):
    with tenant_transaction(user_id):
        return Tenant.objects.get().recipe


def stored_vector(user_id):
    with tenant_transaction(user_id):
        return MemoryVector.objects.order_by("id")[0].embedding


def answers(user_id, vector, query="apollo river"):
    return [(c.id, round(c.score, 5)) for c in found(user_id, query, vector)]


@pytest.mark.parametrize("before", [True, False])
def test_a_turned_rotation_changes_no_answer_before_during_and_after(settings, rng, before):
    settings.MEMORY_VECTOR_ROTATION = before
    vector = rng.normal(size=384)
    for user in (ALICE, BOB):
        store_drawn(user, drawn_documents(rng, [1, 4, 2]))
    expected, old = answers(ALICE, vector), stored_vector(ALICE)
    settings.MEMORY_VECTOR_ROTATION = not before
    assert answers(ALICE, vector) == expected
    with tenant_transaction(ALICE) as user_hash:
        pass
    reindex_tenant(user_hash)
    assert answers(ALICE, vector) == expected
    assert not np.allclose(stored_vector(ALICE), old, atol=0.01)
    assert recipe_of(ALICE) == configured().as_text() != recipe_of(BOB)
    assert "1 tenants were indexed otherwise" in reindex("--status")
    assert "7 rows rebuilt" in reindex()
    assert recipe_of(BOB) == configured().as_text()


def test_rows_written_meanwhile_follow_their_tenant(settings, rng):
    store_drawn(ALICE, drawn_documents(rng, [3]))
    settings.MEMORY_VECTOR_ROTATION = False
    vector = rng.normal(size=384)
    (new,) = store_drawn(ALICE, [[("zeppelin", vector)]])
    (best, *_) = found(ALICE, "zeppelin", vector)
    assert (best.id, best.dense) == (new, pytest.approx(1, abs=1e-5))


def test_another_language_is_asked_for_only_once_it_is_indexed(settings, rng):
    (german, _) = store_drawn(ALICE, [[("Die Häuser", np.ones(384))], [("etwas", np.ones(384))]])
    settings.MEMORY_LEXICAL_LANGUAGE = "german"
    assert found(ALICE, "Haus", np.ones(384))[0].lexical == 0
    reindex()
    best = found(ALICE, "Haus", np.ones(384))[0]
    assert (best.id, best.lexical) == (german, pytest.approx(1))


def test_a_new_filter_key_finds_old_rows_after_a_reindex_and_refuses_before(settings, rng):
    from memory.exceptions import InvalidFilter

    store_drawn(ALICE, drawn_documents(rng, [2]), metadata={"project": "apollo"})
    settings.MEMORY_FILTERABLE_METADATA = ["project"]
    with pytest.raises(InvalidFilter):
        found(ALICE, "x", np.ones(384), metadata={"project": "apollo"})
    reindex()
    assert len(found(ALICE, "x", np.ones(384), metadata={"project": "apollo"})) == 2


def test_a_new_model_embeds_texts_anew_and_keywords_answer_until_then(settings, rng, monkeypatch):
    documents = drawn_documents(rng, [1, 1, 1])
    documents[2][0] = ("the zeppelin", documents[2][0][1])
    ids = store_drawn(ALICE, documents)
    settings.MEMORY_EMBEDDING_MODEL = "another"
    meanwhile = found(ALICE, "zeppelin", documents[0][0][1], model="another")
    assert (meanwhile[0].id, meanwhile[0].score) == (ids[2], pytest.approx(0.5))
    made = rng.normal(size=(3, 384)).astype(np.float32)
    monkeypatch.setattr(tenant_reindex, "embed_passages", lambda texts: made[: len(texts)])
    reindex()
    assert found(ALICE, "", made[1], model="another")[0].id == ids[1]
    with tenant_transaction(ALICE):
        assert MemoryChunk.objects.order_by("id")[1].embedding == pytest.approx(made[1])


def test_clients_embeddings_can_be_kept(settings, rng):
    documents = drawn_documents(rng, [1])
    (only,) = store_drawn(ALICE, documents)
    settings.MEMORY_EMBEDDING_MODEL = "another"
    reindex("--keep-embeddings")
    assert found(ALICE, "", documents[0][0][1])[0].dense == pytest.approx(1, abs=1e-5)


def test_a_stopped_run_goes_on_where_it_was(settings, rng, monkeypatch):
    for user in (ALICE, BOB):
        store_drawn(user, drawn_documents(rng, [3]))
    settings.MEMORY_VECTOR_ROTATION = False
    written = []

    def stops(step):
        if step == "batch written":
            written.append(step)
            if len(written) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(steps, "observer", stops)
    with pytest.raises(KeyboardInterrupt):
        reindex()
    assert recipes().count(configured().as_text()) == 1
    assert "0 rows rebuilt" in reindex()  # the second tenant's rows were written, and only its recipe was not
    assert recipes() == [configured().as_text()] * 2


def test_rows_that_do_not_open_are_counted_and_the_rest_is_done(settings, rng):
    ids = store_drawn(ALICE, drawn_documents(rng, [3]))
    with tenant_transaction(ALICE) as user_hash:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE memory_chunks SET text_cipher = set_byte(text_cipher, 20, get_byte(text_cipher, 20) # 1)"
                " WHERE user_hash = %s AND id = %s",
                [user_hash, ids[0]],
            )
    settings.MEMORY_VECTOR_ROTATION = False
    with pytest.raises(CommandError, match="1 rows do not open"):
        reindex()
    assert recipe_of(ALICE) == configured().as_text()


def test_an_outgrown_tenant_is_back_in_the_indexes(settings, rng):
    settings.MEMORY_EXACT_SCAN_MAX = 50
    store_drawn(ALICE, drawn_documents(rng, [1] * 80))
    assert "0 rows rebuilt, 80 moved" in reindex()
    settings.MEMORY_VECTOR_ROTATION = False
    assert "80 rows rebuilt, 80 moved" in reindex("--graph")
    with tenant_transaction(ALICE):
        assert not MemoryVector.objects.filter(outgrown=False).exists()
        assert set(MemoryTerm.objects.values_list("id", flat=True)) == set(
            MemoryVector.objects.values_list("id", flat=True)
        )


def test_stale_tenants_are_noticed(settings, rng, caplog):
    store_drawn(ALICE, drawn_documents(rng, [1]))
    assert check_stale_indexes(databases=["default"]) == []
    settings.MEMORY_LEXICAL_INDEX = False
    (warning,) = check_stale_indexes(databases=["default"])
    assert warning.id == "memory.W012"
    assert check_stale_indexes() == []
    warn_of_stale_indexes()
    assert "1 tenants were indexed by other settings" in caplog.text
