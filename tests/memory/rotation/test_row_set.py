"""The digest of a tenant's set of rows: every verb keeps it right; it finds what is gone, replayed or rolled back."""

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from asgiref.sync import async_to_sync
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import override_settings

from database.roles import wrapper
from keys.pace import Pace
from keys.rotation import rotate
from memory import indexing
from memory.documents.patches import Patch
from memory.erasure import delete_chunk, delete_document, delete_matching, erase_user
from memory.importing import import_lines
from memory.index import tenant_reindex
from memory.index.missing_macs import check_row_macs
from memory.index.reindexing import reindex_tenant
from memory.index.rows import CHUNKS, VECTORS
from memory.models import MemoryChunk, Tenant
from memory.rls import tenant_transaction
from memory.rotation.encryption_key import EncryptionKeyMover
from memory.rotation.findings import COUNT, NO_MAC, ROW_SET
from memory.rotation.hmac_key import HMACKeyMover
from memory.rotation.integrity import inspect_all
from memory.search.conditions import parse_filter
from memory.security import user_hashes
from memory.tenancy.row_set import RowSet
from memory.verbs import patching
from memory.verbs.expiry import purge_expired
from memory.verbs.exporting import Export
from memory.verbs.patching import patch_chunk, patch_document
from tests.factories import ALICE, BOB, recall, remember, texts, vector_of
from tests.memory.rotation.hmac_rotating import promoted as hmac_promoted
from tests.memory.rotation.rotating import promoted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _two_users(monkeypatch: pytest.MonkeyPatch, readable_names: None) -> None:
    for module in (patching, indexing, tenant_reindex):
        monkeypatch.setattr(module, "embed_passages", lambda texts: np.stack([vector_of(text) for text in texts]))
    monkeypatch.setattr(
        "memory.index.saved_chunks.embed_passages", lambda texts: np.stack([vector_of(text) for text in texts])
    )
    remember(ALICE, "diary", "Apollo", "Gemini", "Mercury", metadata={"n": 1})
    remember(BOB, "diary", "Saturn")


def kinds() -> set[str]:
    return {finding.kind for finding in inspect_all().findings}


def recorded(user_id: str = ALICE) -> RowSet:
    with tenant_transaction(user_id) as user_hash:
        return RowSet.read(user_hash, Tenant.objects.get().row_set)


def ids(user_id: str = ALICE) -> list[UUID]:
    with tenant_transaction(user_id):
        return list(MemoryChunk.objects.order_by("doc_id", "chunk_index").values_list("id", flat=True))


def run(statement: str, *parameters: Any) -> int:
    """As whoever may write inside one user's rows."""
    with tenant_transaction(ALICE), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


# --- Every verb keeps it --------------------------------------------------------------------------
def replace_document() -> None:
    remember(ALICE, "diary", "Apollo", "Soyuz")


def replace_by_as_many() -> None:
    remember(ALICE, "diary", "Vostok", "Soyuz", "Mir")


def append_async() -> None:
    async def append() -> None:
        async with await wrapper().connect_async() as conn:
            await indexing.index_memory_chunk(conn, ALICE, "diary", "chat", "Skylab", vector_of("Skylab"), {})

    async_to_sync(append)()


def restore() -> None:
    export = Export(user_id=ALICE, embeddings=True)
    lines = list(export)
    export.close()
    delete_document(user_id=ALICE, doc_id="diary")
    import_lines(user_id=ALICE, lines=lines, batch_size=2)
    remember(ALICE, "diary", "something else")
    import_lines(user_id=ALICE, lines=lines, batch_size=2, replace=True)
    assert len(ids()) == 3


def expire() -> None:
    with tenant_transaction(ALICE):
        MemoryChunk.objects.filter(chunk_index=1).update(expires_at=datetime.now(UTC) - timedelta(days=1))
    assert purge_expired().deleted["memory_chunks"] == 1


def orm() -> None:
    with tenant_transaction(ALICE) as user_hash:
        made = MemoryChunk(user_hash=user_hash, doc_id="orm", text="Luna", metadata={})
        made.save()
        made.text = "Luna 2"
        made.save()
        made.source = "moved"
        made.save(update_fields=["source"])
        MemoryChunk.objects.bulk_create(
            [MemoryChunk(user_hash=user_hash, doc_id="orm", text=f"Luna {number}", metadata={}) for number in (3, 4, 5)]
        )
        MemoryChunk.objects.filter(doc_id="orm", chunk_index=1).update(source="elsewhere", updated_at=datetime.now(UTC))
        MemoryChunk.objects.get(doc_id="orm", chunk_index=2).delete()
        MemoryChunk.objects.filter(doc_id="orm", chunk_index=3).delete()
    with pytest.raises(ZeroDivisionError), tenant_transaction(ALICE), transaction.atomic():
        MemoryChunk.objects.filter(doc_id="orm").delete()
        raise ZeroDivisionError
    assert len(ids()) == 5


def two_in_one_transaction() -> None:
    with tenant_transaction(ALICE), transaction.atomic():
        remember(ALICE, "another", "Voyager")
        delete_chunk(user_id=ALICE, chunk_id=ids()[1])
        MemoryChunk.objects.filter(doc_id="diary", chunk_index=1).update(source="x")


VERBS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "replace": replace_document,
    "replace by as many": replace_by_as_many,
    "append": append_async,
    "metadata": lambda: patch_chunk(user_id=ALICE, chunk_id=ids()[0], patch=Patch(metadata={"n": 2})),
    "text of a chunk": lambda: patch_chunk(user_id=ALICE, chunk_id=ids()[0], patch=Patch({"text": "Gagarin"})),
    "title": lambda: patch_document(user_id=ALICE, doc_id="diary", patch=Patch({"title": "Flights"})),
    "text of a document": lambda: patch_document(user_id=ALICE, doc_id="diary", patch=Patch(text="Apollo. Buran.")),
    "delete a chunk": lambda: delete_chunk(user_id=ALICE, chunk_id=ids()[0]),
    "delete a document": lambda: delete_document(user_id=ALICE, doc_id="diary"),
    "delete what matches": lambda: delete_matching(user_id=ALICE, filter=parse_filter({"source": "chat"})),
    "erase": lambda: erase_user(user_id=ALICE),
    "erase and store": lambda: (erase_user(user_id=ALICE), remember(ALICE, "diary", "again")),
    "restore": restore,
    "expire": expire,
    "orm": orm,
    "two in one transaction": two_in_one_transaction,
    "reindex": lambda: reindex_tenant(user_hashes(ALICE)[0], force=True),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_it_stays_right(verb: Callable[[], object]) -> None:
    verb()
    assert kinds() == set()


def test_a_rotation_of_the_encryption_key_keeps_it() -> None:
    before = recorded()
    with promoted():
        assert rotate(EncryptionKeyMover(), started_by="test", pace=Pace(batch=2)).verified
        assert kinds() == set()
        assert recorded() == before  # what a row counts for knows no seal
        remember(ALICE, "diary", "after the rotation")
        assert kinds() == set()


@pytest.mark.parametrize("batch", [100, 1], ids=["at once", "in windows"])
def test_a_move_to_another_hmac_key_keeps_it(batch: int) -> None:
    with hmac_promoted():
        done = rotate(HMACKeyMover(), started_by="test", pace=Pace(batch=batch))
        assert done.verified, done.message
        assert (recorded().count, kinds()) == (3, set())
        remember(ALICE, "diary", "after the move")
        assert kinds() == set()


def test_labels_that_change_in_place(settings: Any) -> None:
    settings.MEMORY_FILTERABLE_METADATA = ["n"]
    remember("person:9", "diary", "Apollo", metadata={"n": 1})
    patch_chunk(user_id="person:9", chunk_id=ids("person:9")[0], patch=Patch(metadata={"n": 2}))
    assert kinds() == set()
    assert texts(recall("person:9", "Apollo", metadata={"n": 2})) == ["Apollo"]


def test_a_reindex_to_another_model(settings: Any) -> None:
    settings.MEMORY_EMBEDDING_MODEL = "another"
    before = recorded()
    assert reindex_tenant(user_hashes(ALICE)[0]).rows == 3
    after = recorded()
    assert (after.count, after.version > before.version, after.total != before.total) == (3, True, True)
    assert kinds() == set()


# --- What it finds --------------------------------------------------------------------------------
def kept(table: Any, where: str = "chunk_index = 0") -> tuple[str, list[Any]]:
    """A row as it is now, to be put back later."""
    with tenant_transaction(ALICE), connection.cursor() as cursor:
        cursor.execute(f"SELECT c::text FROM {table.name} c WHERE {where}")
        (row,) = cursor.fetchone()
    return f"INSERT INTO {table.name} SELECT (%s::{table.name}).*", [row]


def put_back(*rows: tuple[str, list[Any]]) -> None:
    for statement, parameters in rows:
        assert run(statement, *parameters) == 1


def test_a_deleted_row() -> None:
    run("DELETE FROM memory_chunks WHERE chunk_index = 0")
    run("UPDATE tenants SET chunk_count = chunk_count - 1")
    assert kinds() == {ROW_SET}


def test_all_rows_deleted() -> None:
    run("DELETE FROM memory_chunks")
    run("UPDATE tenants SET chunk_count = 0")
    assert kinds() == {ROW_SET}


def test_a_replayed_row() -> None:
    rows = kept(CHUNKS), kept(VECTORS)
    delete_chunk(user_id=ALICE, chunk_id=ids()[0])
    assert kinds() == set()
    put_back(*rows)
    run("UPDATE tenants SET chunk_count = chunk_count + 1")
    assert texts(recall(ALICE, "Apollo"))[0] == "Apollo"  # it is as it was written, so that no read refuses it
    assert kinds() == {ROW_SET}


@pytest.mark.parametrize("patch", [Patch(metadata={"n": 2}), Patch({"text": "Gagarin"})], ids=["metadata", "text"])
def test_a_row_rolled_back(patch: Patch) -> None:
    rows = kept(CHUNKS), kept(VECTORS)
    patch_chunk(user_id=ALICE, chunk_id=ids()[0], patch=patch)
    run("DELETE FROM memory_chunks WHERE chunk_index = 0")
    put_back(*rows)
    assert kinds() == {ROW_SET}


def test_one_row_for_another_that_was_there_once() -> None:
    """As many as before."""
    rows = kept(CHUNKS), kept(VECTORS)
    delete_chunk(user_id=ALICE, chunk_id=ids()[0])
    run("DELETE FROM memory_chunks WHERE chunk_index = 1")
    put_back(*rows)
    assert kinds() == {ROW_SET}


def test_the_digest_of_another_moment() -> None:
    with tenant_transaction(ALICE):
        before = bytes(Tenant.objects.get().row_set)
    remember(ALICE, "another", "Voyager")
    run("UPDATE tenants SET row_set = %s", before)
    assert kinds() == {ROW_SET}


@pytest.mark.parametrize("place", [0, 15, 16, 32, 63, 64, 95])
def test_an_edited_digest(place: int) -> None:
    run(f"UPDATE tenants SET row_set = set_byte(row_set, {place}, get_byte(row_set, {place}) # 1)")
    assert kinds() == {ROW_SET}
    remember(ALICE, "another", "Voyager")  # a write goes through, and does not make it right
    assert kinds() == {ROW_SET}


def test_another_users_digest() -> None:
    with tenant_transaction(BOB):
        of_bob = bytes(Tenant.objects.get().row_set)
    run("UPDATE tenants SET row_set = %s", of_bob)
    assert kinds() == {ROW_SET}


def test_a_digest_taken_away() -> None:
    run("UPDATE tenants SET row_set = NULL")
    assert kinds() == {NO_MAC}
    remember(ALICE, "another", "Voyager")
    assert kinds() == {NO_MAC}


def test_the_tenants_row_taken_away_and_made_again() -> None:
    run("DELETE FROM tenants")
    remember(ALICE, "another", "Voyager")
    assert kinds() == {ROW_SET, COUNT}


def test_a_row_that_was_moved_into_a_document_which_is_deleted_then() -> None:
    """The user deletes the document, and the row with it: what is taken away is what the row said, not what it was."""
    remember(ALICE, "other", "Voyager")
    for table in ("memory_chunks", "memory_vectors"):
        run(f"UPDATE {table} SET doc_id = 'other', chunk_index = 7 WHERE doc_id = 'diary' AND chunk_index = 0")
    assert delete_document(user_id=ALICE, doc_id="other") == 2
    assert kinds() == {ROW_SET}


def test_a_row_of_the_index_that_was_edited_to_be_deleted() -> None:
    """The user deletes what a filter matches, and one row more than that."""
    remember(ALICE, "other", "Voyager", source="space")
    run("UPDATE memory_vectors SET source = 'space' WHERE doc_id = 'diary' AND chunk_index = 0")
    assert delete_matching(user_id=ALICE, filter=parse_filter({"source": "space"})) == 2
    assert kinds() == {ROW_SET}


def test_a_version_that_was_traded_before_a_deletion() -> None:
    run(
        "UPDATE memory_chunks c SET chunk_mac = o.chunk_mac FROM memory_chunks o"
        " WHERE c.chunk_index = 0 AND o.chunk_index = 1"
    )
    delete_chunk(user_id=ALICE, chunk_id=ids()[0])
    assert kinds() == {ROW_SET}


@pytest.mark.parametrize("batch", [100, 1])
def test_a_move_does_not_make_it_right(batch: int) -> None:
    run("DELETE FROM memory_chunks WHERE chunk_index = 0")
    run("UPDATE tenants SET chunk_count = chunk_count - 1")
    with hmac_promoted():
        failed = rotate(HMACKeyMover(), started_by="test", pace=Pace(batch=batch))
        assert failed.state == "failed"
        assert "digest" in str(failed.failures)
        assert sorted(texts(recall(ALICE, "Gemini"))) == ["Gemini", "Mercury"]  # served under the old key
        assert kinds() == {ROW_SET}
        call_command("complete_row_macs", accept=user_hashes(ALICE)[1][:8], stdout=io.StringIO())
        assert rotate(HMACKeyMover(), started_by="test", pace=Pace(batch=batch)).verified
        assert kinds() == set()


def test_these_tests_see_the_check_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    run("DELETE FROM memory_chunks WHERE chunk_index = 0")
    run("UPDATE tenants SET chunk_count = chunk_count - 1")
    monkeypatch.setattr(RowSet, "holds", lambda self, rows: True)
    assert kinds() == set()


# --- Rows from before -----------------------------------------------------------------------------
@pytest.fixture
def _from_before(settings: Any) -> Iterator[None]:
    for user_id in (ALICE, BOB):
        with tenant_transaction(user_id), connection.cursor() as cursor:
            cursor.execute("UPDATE memory_chunks SET chunk_mac = NULL")
            cursor.execute("UPDATE memory_vectors SET vector_mac = NULL")
            cursor.execute("UPDATE tenants SET row_set = NULL")
    settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC = True
    yield


@pytest.mark.usefixtures("_from_before")
def test_rows_from_before_are_read_and_written_and_completed(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.index.completed_macs.ROWS_PER_BATCH", 2)
    assert texts(recall(ALICE, "Apollo"))[0] == "Apollo"
    patch_chunk(user_id=ALICE, chunk_id=ids()[0], patch=Patch(metadata={"n": 2}))
    remember("person:9", "new", "meanwhile")
    seen = inspect_all()
    assert (seen.findings, seen.without_mac, seen.without_set) == ([], 3, 3)
    out = io.StringIO()
    call_command("verify_integrity", stdout=out)
    assert "3 rows have no MAC yet, and 3 tenants" in out.getvalue()
    call_command("complete_row_macs", stdout=out)
    assert "4 rows got MACs, 3 tenants" in out.getvalue()
    settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC = False
    seen = inspect_all()
    assert (seen.findings, seen.without_mac, seen.without_set) == ([], 0, 0)
    run("DELETE FROM memory_chunks WHERE chunk_index = 0")
    run("UPDATE tenants SET chunk_count = chunk_count - 1")
    assert kinds() == {ROW_SET}


@pytest.mark.usefixtures("_from_before")
def test_a_row_that_does_not_open_stays_without() -> None:
    run("UPDATE memory_chunks SET text_cipher = reverse(text_cipher) WHERE chunk_index = 0")
    with pytest.raises(CommandError, match="1 rows do not open"):
        call_command("complete_row_macs", stdout=io.StringIO())


@pytest.mark.usefixtures("_from_before")
def test_a_move_completes_them() -> None:
    with hmac_promoted():
        assert rotate(HMACKeyMover(), started_by="test", pace=Pace()).verified
        with override_settings(MEMORY_ACCEPT_ROWS_WITHOUT_MAC=False):
            assert kinds() == set()


def test_completing_is_refused_where_every_row_has_one() -> None:
    run("UPDATE tenants SET row_set = NULL")
    with pytest.raises(CommandError, match="MEMORY_ACCEPT_ROWS_WITHOUT_MAC is false"):
        call_command("complete_row_macs", stdout=io.StringIO())


@pytest.mark.usefixtures("_from_before")
def test_the_check_says_what_is_left_to_do(settings: Any) -> None:
    def said() -> str:
        return " ".join(message.msg for message in check_row_macs(databases=["default"]))

    assert said().startswith("2 tenants have rows from before")
    settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC = False
    assert said().startswith("2 tenants have no digest")
    settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC = True
    call_command("complete_row_macs", stdout=io.StringIO())
    assert said().startswith("MEMORY_ACCEPT_ROWS_WITHOUT_MAC is true, and every tenant")
    settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC = False
    assert check_row_macs(databases=["default"]) == []
    assert check_row_macs() == []


@pytest.mark.parametrize("prefix", ["", "0", "zzzzzzzz"])
def test_accepting_names_one_tenant(prefix: str) -> None:
    with pytest.raises(CommandError, match="0 tenants begin so"):
        call_command("complete_row_macs", accept=prefix, stdout=io.StringIO())
