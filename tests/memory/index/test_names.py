"""Names of documents and sources, readable or sealed: every verb answers alike, and a dump shows no sealed one."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.db import NotSupportedError, connection, connections, transaction

from keys import steps
from keys.pace import Pace
from keys.rotation import rotate
from memory.erasure import delete_document, erase_user
from memory.exceptions import InvalidDocument
from memory.importing import import_lines
from memory.index import name_reindex
from memory.index.names import in_either_form, name_label
from memory.index.recipe import configured, recorded
from memory.index.reindexing import reindex_tenant
from memory.index.stale_settings import stale_tenant_count
from memory.indexing import existing_doc_ids, index_memory_chunk
from memory.listing import Sort, list_chunks, read_document
from memory.models import MemoryChunk, MemoryVector, Tenant
from memory.rls import tenant_transaction
from memory.rotation.hmac_key import HMACKeyMover
from memory.rotation.integrity import inspect_all
from memory.search.conditions import parse_filter
from memory.security import hmac_user
from memory.tenancy.live_database import tenant_tables
from memory.verbs.exporting import Export
from tests.children import KILLED, die_in_a_child
from tests.factories import ALICE, BOB, recall, remember, texts, vector_of
from tests.memory.rotation import rotating
from tests.memory.rotation.hmac_rotating import promoted
from tests.memory.verbs.changes import change, change_document

pytestmark = pytest.mark.django_db(transaction=True)

DOC, SOURCE = "letter-to-dr-osei", "clinic-mailbox"
A, B = "a" * 64, "b" * 64


@pytest.fixture(params=[True, False], ids=["sealed", "readable"])
def sealed(request: pytest.FixtureRequest, settings: Any) -> bool:
    settings.MEMORY_SEALED_NAMES = request.param
    return bool(request.param)


@pytest.fixture(autouse=True)
def _no_observer() -> Iterator[None]:
    yield
    steps.observer = None


def dumped() -> str:
    """Every row of every tenant table, as memory_backup, the role of pg_dump, reads it."""
    with connections["default"].connect_as("backup") as conn, conn.cursor() as cursor:
        rows = [cursor.execute(f"SELECT t::text FROM {table} t").fetchall() for table in tenant_tables()]
    return "\n".join(row for table in rows for (row,) in table)


def columns(user_id: str = ALICE) -> list[tuple[str, str, str, str]]:
    """doc_id and source as they lie in both tables."""
    with tenant_transaction(user_id) as user_hash, connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.doc_id, c.source, v.doc_id, v.source FROM memory_chunks c JOIN memory_vectors v"
            " USING (user_hash, id) WHERE user_hash = %s ORDER BY id",
            [user_hash],
        )
        return cursor.fetchall()


def recipe(user_id: str = ALICE) -> str:
    with tenant_transaction(user_id):
        return Tenant.objects.get().recipe


# --- labels -----------------------------------------------------------------------------------------------------------


def test_a_label_is_one_of_its_user_its_column_and_its_name_alone() -> None:
    label = name_label(A, "doc_id", DOC)
    assert label == name_label(A, "doc_id", DOC)
    others = {name_label(B, "doc_id", DOC), name_label(A, "source", DOC), name_label(A, "doc_id", DOC + "x")}
    assert label not in others and len(others) == 3
    assert len(label) == 23 and label[0] == "\x01"
    assert name_label(A, "source", "") == ""


def test_the_label_of_a_name_is_frozen() -> None:
    """What is stored depends on it: a change would lose every document."""
    import hmac
    from base64 import urlsafe_b64encode

    from memory.sealing.subkeys import name_subkey

    digest = hmac.digest(name_subkey(A), b"doc_id:note-\xc3\xa9", "sha256")[:16]
    assert name_label(A, "doc_id", "note-é") == "\x01" + urlsafe_b64encode(digest).decode().rstrip("=")


def test_what_looks_like_a_label_is_no_name() -> None:
    label = name_label(A, "doc_id", DOC)
    assert label not in in_either_form(A, "doc_id", [label])
    with pytest.raises(InvalidDocument, match="control characters"):
        remember(ALICE, label, "a text")


# --- what a dump shows ------------------------------------------------------------------------------------------------


def test_a_dump_shows_names_only_where_they_are_readable(sealed: bool) -> None:
    remember(ALICE, DOC, "one", "two", source=SOURCE)
    change_document(DOC, {"title": "A title"})
    with tenant_transaction(ALICE):
        MemoryChunk.objects.create(doc_id=DOC, source=SOURCE, text="three", embedding=vector_of("three"))
    for name in (DOC, SOURCE):
        assert (name not in dumped()) is sealed
    assert [each.startswith("\x01") for row in columns() for each in row] == [sealed] * 12


def test_equal_names_of_two_users_have_nothing_in_common() -> None:
    for user_id in (ALICE, BOB):
        remember(user_id, DOC, "one", source=SOURCE)
    (alices,), (bobs,) = columns(ALICE), columns(BOB)
    assert not {*alices} & {*bobs}


def test_statistics_hold_no_name() -> None:
    for number in range(30):
        remember(ALICE, DOC, f"text {number}", source=SOURCE)
        remember(BOB, f"doc-{number}", "x", source=SOURCE)
    with connections["default"].connect_as("owner") as conn, conn.cursor() as cursor:
        conn.autocommit = True
        cursor.execute("ANALYZE memory_chunks, memory_vectors")
        cursor.execute("SELECT s::text FROM pg_stats s WHERE tablename IN ('memory_chunks', 'memory_vectors')")
        assert SOURCE not in str(cursor.fetchall())


# --- verbs ------------------------------------------------------------------------------------------------------------


def test_every_read_gives_the_names_of_the_client(sealed: bool) -> None:
    (first, _) = remember(ALICE, DOC, "one", "two", source=SOURCE)
    remember(ALICE, "other", "three", source="")
    named = {("one", DOC, SOURCE), ("two", DOC, SOURCE), ("three", "other", "")}
    listed = list_chunks(user_id=ALICE, limit=10).chunks
    assert {(each.text, each.doc_id, each.source) for each in listed} == named
    found = recall(ALICE, "one", top_k=10)
    assert {(each.text, each.doc_id, each.source) for each in found} == named
    assert change(first, metadata={"k": 1}).doc_id == DOC
    assert change(first, text="ONE", embedding=vector_of("ONE").tolist()).source == SOURCE


def test_a_document_is_replaced_counted_on_and_deleted_by_its_name(sealed: bool) -> None:
    remember(ALICE, DOC, "one", "two")
    remember(ALICE, "other", "kept")
    remember(ALICE, DOC, "three")
    assert existing_doc_ids(user_id=ALICE, doc_ids=[DOC, "other", "none"]) == {DOC, "other"}

    async def append() -> None:
        parameters = connections["default"].parameters_of("app")  # type: ignore[attr-defined]
        async with await psycopg.AsyncConnection.connect(**parameters) as conn:
            await index_memory_chunk(conn, ALICE, DOC, "", "four", vector_of("four"), {})

    async_to_sync(append)()
    pages = read_document(user_id=ALICE, doc_id=DOC, limit=10).chunks
    assert [(each.chunk_index, each.text) for each in pages] == [(0, "three"), (1, "four")]
    assert delete_document(user_id=ALICE, doc_id="nothing") == 0
    assert delete_document(user_id=ALICE, doc_id=DOC) == 2
    assert [each.text for each in list_chunks(user_id=ALICE, limit=10).chunks] == ["kept"]
    assert inspect_all().found == 0


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"source": "chat"}, "ab"),
        ({"source": {"ne": "chat"}}, "cd"),
        ({"source": {"in": ["chat", "mail"]}}, "abc"),
        ({"source": {"in": [*map(str, range(30)), "mail"]}}, "c"),
        ({"source": {"exists": True}}, "abc"),
        ({"source": {"exists": False}}, "d"),
        ({"source": ""}, "d"),
        ({"doc_id": "b"}, "b"),
        ({"doc_id": {"ne": "b"}}, "acd"),
        ({"doc_id": {"in": ["a", "d", "z"]}}, "ad"),
        ({"NOT": {"source": "chat"}}, "cd"),
        ({"source": "\x01AAAAAAAAAAAAAAAAAAAAAA"}, ""),
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_filters_find_what_they_found(
    sealed: bool, settings: Any, condition: dict[str, Any], expected: str, large: bool
) -> None:
    settings.MEMORY_EXACT_SCAN_MAX = 2 if large else 1_000
    for name, source in (("a", "chat"), ("b", "chat"), ("c", "mail"), ("d", "")):
        remember(ALICE, name, f"memory {name}", source=source)
    found = recall(ALICE, "memory a", top_k=10, filter=parse_filter(condition))
    assert "".join(sorted(each.doc_id for each in found)) == expected


@pytest.mark.parametrize("large", [False, True])
def test_plain_scopes_and_listings_too(sealed: bool, settings: Any, large: bool) -> None:
    settings.MEMORY_EXACT_SCAN_MAX = 1 if large else 1_000
    remember(ALICE, "a", "one", source="chat")
    remember(ALICE, "b", "two", source="mail")
    assert texts(recall(ALICE, "one", source="mail")) == texts(recall(ALICE, "one", doc_id="b")) == ["two"]
    assert recall(ALICE, "one", doc_id=columns()[0][0]) == ([] if sealed else recall(ALICE, "one", doc_id="a"))
    for sort in (Sort.CREATED, Sort.OCCURRED):
        listed = list_chunks(user_id=ALICE, limit=10, source="chat", sort=sort).chunks
        assert [each.text for each in listed] == ["one"]
    assert [each.text for each in list_chunks(user_id=ALICE, limit=10, doc_id="b").chunks] == ["two"]


def test_an_export_goes_into_an_installation_of_the_other_form(sealed: bool, settings: Any) -> None:
    for number in range(5):
        remember(ALICE, f"doc-{number}", "one", "two", source=f"source-{number}")
    with closing(Export(user_id=ALICE)) as export:
        lines = list(export)
    told = [json.loads(line) for line in lines]
    assert {each["doc_id"]: len(each["stored"]) for each in told if "stored" in each} == dict.fromkeys(
        [f"doc-{number}" for number in range(5)], 2
    )
    erase_user(user_id=ALICE)
    settings.MEMORY_SEALED_NAMES = not sealed
    for _ in range(2):  # again, as after an interruption
        import_lines(user_id=BOB, lines=lines, batch_size=2)
    stored = list_chunks(user_id=BOB, limit=100).chunks
    assert {(each.doc_id, each.source) for each in stored} == {(f"doc-{n}", f"source-{n}") for n in range(5)}
    assert len(stored) == 10
    assert inspect_all().found == 0


# --- the ORM ----------------------------------------------------------------------------------------------------------


def test_the_orm_reads_and_compares_names_as_the_client_gave_them(sealed: bool) -> None:
    with tenant_transaction(ALICE):
        for name, source in (("a", "chat"), ("b", "mail")):
            MemoryChunk.objects.create(doc_id=name, source=source, text=name, embedding=vector_of(name))
        MemoryChunk.objects.bulk_create([MemoryChunk(user_hash=hmac_user(ALICE), doc_id="a", source="chat", text="c",
                                                     embedding=vector_of("c"))])  # fmt: skip
        chunks = MemoryChunk.objects.order_by("id")
        assert [(each.doc_id, each.source, each.chunk_index) for each in chunks] == [
            ("a", "chat", 0), ("b", "mail", 0), ("a", "chat", 1),
        ]  # fmt: skip
        assert chunks.filter(doc_id="a", source="chat").count() == 2
        assert [each.doc_id for each in chunks.exclude(source="chat")] == ["b"]
        assert chunks.filter(doc_id__in=["b", "z"]).get().text == "b"
        assert chunks.filter(doc_id__in=[]).count() == chunks.filter(doc_id="z").count() == 0
        assert MemoryVector.objects.filter(doc_id="a", source="chat").count() == 2
        stored = chunks.values_list("doc_id", flat=True)[0]
        assert (stored != "a") is sealed
        assert MemoryChunk.objects.filter(doc_id=stored).count() == 2
        assert MemoryChunk.objects.filter(doc_id=str(stored)).count() == (0 if sealed else 2)
        assert chunks.only("text_cipher")[0].doc_id == "a"
    assert inspect_all().found == 0


def test_a_saved_chunk_takes_its_new_name_along(sealed: bool) -> None:
    (chunk_id,) = remember(ALICE, "old", "one", source="chat")
    with tenant_transaction(ALICE):
        chunk = MemoryChunk.objects.get(id=chunk_id)
        chunk.doc_id, chunk.source = "new", "mail"
        chunk.save()
        again = MemoryChunk.objects.get(doc_id="new", source="mail")
        again.source = "post"
        again.save(update_fields=["source"])
        assert MemoryChunk.objects.get().source == "post"
        assert MemoryVector.objects.filter(source="post").count() == 1
    assert [each.doc_id for each in recall(ALICE, "one", source="post")] == ["new"]
    assert inspect_all().found == 0


def test_what_would_be_wrong_of_labels_is_refused(sealed: bool) -> None:
    remember(ALICE, "a", "one", source="chat")
    with tenant_transaction(ALICE):
        if sealed:
            with pytest.raises(FieldError, match="may be a label"):
                MemoryChunk.objects.filter(doc_id__startswith="a").count()
            with pytest.raises(NotSupportedError, match="one by one"), transaction.atomic():
                MemoryChunk.objects.update(source="mail")
        else:
            assert MemoryChunk.objects.filter(doc_id__startswith="a").count() == 1
            assert MemoryChunk.objects.update(source="mail") == 1
    assert texts(recall(ALICE, "one", source="chat" if sealed else "mail")) == ["one"]


def test_nothing_that_copies_an_instance_carries_a_name() -> None:
    import pickle

    from django.core import serializers

    remember(ALICE, DOC, "one", source=SOURCE)
    with tenant_transaction(ALICE):
        chunk = MemoryChunk.objects.get()
        assert DOC not in serializers.serialize("json", [chunk]) and DOC.encode() not in pickle.dumps(chunk)
        assert chunk.doc_id == DOC
        assert DOC.encode() not in pickle.dumps(chunk) and DOC not in str(chunk.__dict__)
        chunk.refresh_from_db()
        assert DOC not in str(chunk.__dict__) and chunk.doc_id == DOC
        assert MemoryChunk.objects.defer("doc_id").get().doc_id == DOC


def test_a_raw_save_stores_what_is_stored_and_opens_nothing() -> None:
    """As SQL or `loaddata` would: no name comes out of a seal into a column."""
    remember(ALICE, DOC, "one", source=SOURCE)
    remember(BOB, "own", "two")
    with tenant_transaction(ALICE):
        chunk = MemoryChunk.objects.get()
    with tenant_transaction(BOB) as user_hash:
        chunk.user_hash = user_hash
        chunk.save_base(raw=True, force_insert=True)
        copied = MemoryChunk.objects.filter(id=chunk.id).values_list("doc_id", "source").get()
    assert copied == columns(ALICE)[0][:2]
    assert DOC not in dumped() and SOURCE not in dumped()


# --- from one form to the other ---------------------------------------------------------------------------------------


def names() -> list[tuple[str, str, str]]:
    return sorted((each.text, each.doc_id, each.source) for each in list_chunks(user_id=ALICE, limit=100).chunks)


@pytest.fixture
def stored(sealed: bool, settings: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Alice's memories in one form; the settings ask for the other."""
    monkeypatch.setattr(name_reindex, "ROWS_PER_STEP", 2)
    for number in range(3):
        remember(ALICE, f"doc-{number}", f"one {number}", f"two {number}", source=f"source-{number % 2}")
    change_document("doc-0", {"title": "A title"})
    before = names()
    settings.MEMORY_SEALED_NAMES = not sealed
    return before


def test_reindex_brings_names_over_and_back(stored: list[tuple[str, str, str]], sealed: bool, settings: Any) -> None:
    assert stale_tenant_count() == 1
    for form in (not sealed, sealed):
        settings.MEMORY_SEALED_NAMES = form
        call_command("reindex", verbosity=0)
        assert recipe() == configured().as_text()
        assert [each.startswith("\x01") for row in columns() for each in row] == [form] * 24
        assert names() == stored
        assert texts(recall(ALICE, "two 1", doc_id="doc-1")) == ["two 1", "one 1"]
        assert stale_tenant_count() == inspect_all().found == 0
        with tenant_transaction(ALICE):
            assert {each.title for each in MemoryChunk.objects.filter(doc_id="doc-0")} == {"A title"}


def test_until_then_a_tenant_stays_as_it_is_and_new_ones_are_as_configured(
    stored: list[tuple[str, str, str]], sealed: bool
) -> None:
    remember(ALICE, "doc-1", "replaced", source="source-9")
    remember(BOB, "doc", "Bob's")
    assert {each.startswith("\x01") for row in columns() for each in row} == {sealed}
    assert {columns(BOB)[0][0].startswith("\x01")} == {not sealed}
    assert [name for name in names() if name[1] == "doc-1"] == [("replaced", "doc-1", "source-9")]
    assert inspect_all().found == 0


@pytest.mark.parametrize("step", [1, 3, 4])
def test_killed_anywhere_all_names_are_as_they_were(stored: list[tuple[str, str, str]], step: int) -> None:
    before = columns()
    assert die_in_a_child(lambda: reindex_tenant(hmac_user(ALICE)), step) == KILLED
    assert columns() == before
    assert names() == stored
    assert inspect_all().found == 0
    connection.ensure_connection()
    from keys.models import Lease

    Lease.objects.all().delete()  # that of the killed one, which would expire
    reindex_tenant(hmac_user(ALICE))
    assert names() == stored and recipe() == configured().as_text()


def test_a_large_tenants_names_come_over_with_its_graph(settings: Any) -> None:
    settings.MEMORY_EXACT_SCAN_MAX, settings.MEMORY_SEALED_NAMES = 3, False
    for number in range(8):
        remember(ALICE, f"doc-{number}", f"memory {number}", source=f"source-{number % 2}")
    settings.MEMORY_SEALED_NAMES = True
    reindex_tenant(hmac_user(ALICE))
    with tenant_transaction(ALICE):
        assert MemoryVector.objects.filter(outgrown=True).count() == 8
    found = recall(ALICE, "memory 3", top_k=10, source="source-1")
    assert {each.doc_id for each in found} == {f"doc-{number}" for number in (1, 3, 5, 7)}
    assert found[0].text == "memory 3"
    assert inspect_all().found == 0


def test_rows_under_an_older_key_come_over_under_the_current_one(settings: Any) -> None:
    settings.MEMORY_SEALED_NAMES = False
    remember(ALICE, DOC, "one", source=SOURCE)
    settings.MEMORY_SEALED_NAMES = True
    with rotating.promoted() as (_, new):
        reindex_tenant(hmac_user(ALICE))
        with tenant_transaction(ALICE):
            assert MemoryChunk.objects.get().enc_key_id == new.key_id
        assert inspect_all().drifted == inspect_all().found == 0
        assert texts(recall(ALICE, "one", doc_id=DOC)) == ["one"]


def test_a_row_that_does_not_open_stays_as_it_was(settings: Any) -> None:
    settings.MEMORY_SEALED_NAMES = False
    remember(ALICE, "bad", "one")
    remember(ALICE, "good", "two")
    with tenant_transaction(ALICE), connection.cursor() as cursor:
        cursor.execute("UPDATE memory_chunks SET text_cipher = reverse(text_cipher) WHERE doc_id = 'bad'")
    settings.MEMORY_SEALED_NAMES = True
    done = reindex_tenant(hmac_user(ALICE))
    assert (done.rows, done.unreadable) == (1, 1)
    assert [row[0] for row in columns()][0] == "bad"
    assert texts(recall(ALICE, "two", doc_id="good")) == ["two"]


def test_a_tenant_from_before_recipes_has_readable_names(settings: Any) -> None:
    settings.MEMORY_SEALED_NAMES = False
    remember(ALICE, DOC, "one")
    settings.MEMORY_SEALED_NAMES = True
    with tenant_transaction(ALICE):
        Tenant.objects.update(recipe="")
    assert recorded("").names == 0 and stale_tenant_count() == 1
    assert texts(recall(ALICE, "one", doc_id=DOC)) == ["one"]
    remember(ALICE, DOC, "two")
    assert [each.text for each in list_chunks(user_id=ALICE, limit=10).chunks] == ["two"]
    reindex_tenant(hmac_user(ALICE))
    assert DOC not in dumped() and texts(recall(ALICE, "two", doc_id=DOC)) == ["two"]


@pytest.mark.parametrize("batch", [2, 100])
def test_another_hmac_key_makes_other_labels_as_configured(
    stored: list[tuple[str, str, str]], sealed: bool, batch: int
) -> None:
    before = {each for row in columns() for each in row}
    with promoted():
        rotate(HMACKeyMover(), started_by="test", pace=Pace(batch=batch))
        assert names() == stored
        assert {each.startswith("\x01") for row in columns() for each in row} == {not sealed}
        assert not before & {each for row in columns() for each in row}
        assert texts(recall(ALICE, "two 1", doc_id="doc-1", source="source-1")) == ["two 1", "one 1"]
        remember(ALICE, "doc-1", "replaced")
        assert len(names()) == 5
        assert stale_tenant_count() == inspect_all().found == 0


@pytest.mark.parametrize("change", ["doc_id = 'letter'", "source = source || 'x'"])
@pytest.mark.parametrize("with_mac", [True, False])
def test_changed_names_are_found(settings: Any, change: str, with_mac: bool) -> None:
    """By the row's MAC, and in rows that have none by what is sealed."""
    settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC = not with_mac
    remember(ALICE, DOC, "one", source=SOURCE)
    with tenant_transaction(ALICE), connection.cursor() as cursor:
        for table, mac in (("memory_vectors", "vector_mac"), ("memory_chunks", "chunk_mac")):
            cursor.execute(f"UPDATE {table} SET {change}{'' if with_mac else f', {mac} = NULL'}")
    details = [finding.detail for finding in inspect_all().findings]
    assert any(("MAC" if with_mac else "doc_id and source are not those") in each for each in details)
    assert DOC not in str(details) and SOURCE not in str(details)


def test_the_seal_of_a_row_holds_its_names_in_whatever_way_it_came(tmp_path: Path) -> None:
    """What was imported, patched or saved is of one form with all else."""
    import_lines(user_id=ALICE, lines=[b'{"doc_id": "a", "text": "imported", "source": "file"}'], batch_size=1)
    change_document("a", {"title": "Named"})
    change_document("a", {"metadata": {"k": 1}})
    (row,) = columns()
    assert all(each.startswith("\x01") for each in row)
    assert [(each.doc_id, each.source, each.title) for each in list_chunks(user_id=ALICE, limit=1).chunks] == [
        ("a", "file", "Named")
    ]
