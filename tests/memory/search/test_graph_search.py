"""Tenants that have outgrown the exact scan: the same answers, from the indexes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from asgiref.sync import async_to_sync
from django.db import connection, connections

from database.roles import as_owner
from memory.documents.document import Chunk, Document
from memory.index.tail import index_tail
from memory.indexing import index_documents, index_memory_chunk
from memory.models import MemoryTerm, MemoryVector
from memory.rls import tenant_transaction
from memory.search.candidates import GRAPH_INDEX
from memory.search.exact_scan import PINS as EXACT_PINS
from memory.search.exact_scan import exact_scan
from memory.search.filters import Scope
from memory.search.graph_search import PINS, holding, nearest, rescored
from memory.search.search_parameters import Weights
from memory.tenancy.cursors import sending
from memory.tenancy.planner_settings import planner_settings
from tests.factories import WORDS, drawn_documents, store_drawn
from tests.memory.brute_force import fused
from tests.memory.plans import nodes, planned, scans, times_prepared
from tests.memory.search.searches import asked, found, path_of
from tests.memory.waiting import in_thread, wait_until_one_waits

ALICE, MALLORY = "person:1", "person:2"


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def small_tiers(settings):
    settings.MEMORY_EXACT_SCAN_MAX = 100


def outgrown_tenant(rng, user_id=ALICE, sizes=(1, 5, 3) * 60):
    documents = drawn_documents(rng, sizes)
    ids = store_drawn(user_id, documents)
    index_tail(user_id=user_id, limit=10_000)
    return documents, ids


@pytest.mark.django_db
@pytest.mark.parametrize("query", ["apollo river", "tomato", "nothing known", "the", "🙂"])
def test_the_indexes_find_what_brute_force_finds(small_tiers, rng, query):
    documents, ids = outgrown_tenant(rng)
    with tenant_transaction(ALICE):
        assert not MemoryVector.objects.filter(outgrown=False).exists()
    vector = rng.normal(size=384)
    expected = fused(query, vector, documents)
    best = [ids[place] for place in np.argsort(-expected, kind="stable")[:24]]
    candidates = found(ALICE, query, vector)
    # 540 rows, all of them within reach of 200 near ones and 200 with a term, or nearly.
    assert len(set(best) & {c.id for c in candidates}) >= 23
    assert candidates[0].id == best[0]
    assert candidates[0].score == pytest.approx(expected.max(), abs=1e-3)


@pytest.mark.django_db
def test_rows_that_are_not_yet_in_the_indexes_are_found(small_tiers, rng):
    outgrown_tenant(rng)
    vector = rng.normal(size=384)
    index_documents(user_id=MALLORY, documents=[Document(doc_id="x", source="", chunks=(Chunk("zeppelin", vector),))])
    with tenant_transaction(ALICE):
        settled = MemoryVector.objects.count()
    (new,) = store_one(ALICE, "late", "zeppelin", vector)
    with tenant_transaction(ALICE):
        MemoryVector.objects.filter(id=new).update(outgrown=False)
        MemoryTerm.objects.filter(id=new).delete()
        assert MemoryVector.objects.filter(outgrown=True).count() == settled
    path, candidates = path_of(ALICE, vector)
    assert (path, candidates[0].id) == ("graph", new)


def store_one(user_id, doc_id, text, vector, source=""):
    (document,) = index_documents(
        user_id=user_id, documents=[Document(doc_id=doc_id, source=source, chunks=(Chunk(text, vector),))]
    )
    return document.chunk_ids


@pytest.mark.django_db
def test_a_tenant_below_the_boundary_stays_out_of_the_indexes(small_tiers, rng):
    store_drawn(ALICE, drawn_documents(rng, [1] * 100))
    assert index_tail(user_id=ALICE, limit=1000) == 0
    assert path_of(ALICE, rng.normal(size=384))[0] == "exact"


@pytest.mark.django_db
def test_writes_move_an_outgrown_tenant_into_the_indexes(small_tiers, rng):
    store_drawn(ALICE, drawn_documents(rng, [1] * 110))
    for number in range(14):
        store_one(ALICE, f"more-{number}", "apollo", rng.normal(size=384))
    with tenant_transaction(ALICE):
        assert MemoryVector.objects.filter(outgrown=True).count() == 124
        assert set(MemoryTerm.objects.values_list("id", flat=True)) <= set(
            MemoryVector.objects.values_list("id", flat=True)
        )


@pytest.mark.django_db
def test_a_failing_move_does_not_fail_the_write(small_tiers, rng, monkeypatch, caplog):
    from memory.index import tail

    store_drawn(ALICE, drawn_documents(rng, [1] * 110))
    monkeypatch.setattr(tail, "TAIL", "SELECT id, lexical FROM nowhere WHERE user_hash = %s LIMIT %s")
    assert store_one(ALICE, "more", "apollo", rng.normal(size=384))
    assert "wait outside the index" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_deletion_and_a_move_of_the_same_rows_never_deadlock(small_tiers, rng, monkeypatch):
    from memory.erasure import delete_document
    from memory.index import tail

    store_drawn(ALICE, drawn_documents(rng, [110]))
    holds_rows, delete_waits = threading.Event(), threading.Event()
    insert_terms = tail.insert

    def insert_once_the_delete_waits(*args, **options):
        holds_rows.set()
        delete_waits.wait(10)
        insert_terms(*args, **options)

    monkeypatch.setattr(tail, "insert", insert_once_the_delete_waits)
    with ThreadPoolExecutor() as threads:
        moving = threads.submit(in_thread, index_tail, user_id=ALICE, limit=1000)
        assert holds_rows.wait(10)
        deleting = threads.submit(in_thread, delete_document, user_id=ALICE, doc_id="doc-0")
        wait_until_one_waits()
        delete_waits.set()
        assert (moving.result(10), deleting.result(10)) == (110, 110)


@pytest.mark.django_db
def test_deleting_a_chunk_deletes_its_terms(small_tiers, rng):
    from memory.erasure import delete_document, erase_user

    outgrown_tenant(rng)
    with tenant_transaction(ALICE):
        before = MemoryTerm.objects.count()
    delete_document(user_id=ALICE, doc_id="doc-1")
    with tenant_transaction(ALICE):
        assert 0 < MemoryTerm.objects.count() < before
    assert erase_user(user_id=ALICE).remaining["memory_terms"] == 0


@pytest.mark.django_db
def test_narrow_filters_lose_nothing(small_tiers, rng, monkeypatch):
    outgrown_tenant(rng)
    vector = rng.normal(size=384)
    with tenant_transaction(ALICE):
        rare = set(MemoryVector.objects.filter(doc_id="doc-7").values_list("id", flat=True))
    path, candidates = path_of(ALICE, vector, doc_id="doc-7")
    assert (path, {c.id for c in candidates}) == ("graph", rare)
    monkeypatch.setattr("memory.search.narrowing.MOST", 0)  # no index finds few enough
    path, candidates = path_of(ALICE, vector, doc_id="doc-7")
    assert (path, {c.id for c in candidates}) == ("exact", rare)
    day = timedelta(days=1)
    assert not found(ALICE, "apollo", vector, created_before=datetime.now(UTC) - day)
    path, candidates = path_of(ALICE, vector, created_after=datetime.now(UTC) - day)
    assert (path, len(candidates)) == ("graph", 24)


@pytest.mark.django_db
def test_a_filter_loses_no_keyword_behind_heavier_ones_out_of_scope(small_tiers, rng, monkeypatch):
    monkeypatch.setattr("memory.search.graph_search.POSTINGS_IN_SCOPE", 8)
    vector = rng.normal(size=384)
    for source, text, count in (("out", "zeppelin", 60), ("in", "garden", 250)):
        for number in range(count):
            store_one(ALICE, f"{source}-{number}", text, rng.normal(size=384), source)
    (needle,) = store_one(ALICE, "needle", "zeppelin " + " ".join(WORDS) * 3, -vector, "in")
    index_tail(user_id=ALICE, limit=1000)
    path, candidates = path_of(ALICE, vector, "zeppelin", source="in", weights=Weights(lexical=4.0))
    assert (path, candidates[0].id) == ("graph", needle)


@pytest.mark.django_db
def test_a_missing_graph_means_the_exact_path_and_a_warning(small_tiers, rng, monkeypatch, caplog):
    outgrown_tenant(rng)
    vector = rng.normal(size=384)
    _, expected = path_of(ALICE, vector)
    monkeypatch.setattr("memory.search.candidates.GRAPH_INDEX", "dropped")
    path, candidates = path_of(ALICE, vector)
    assert path == "exact"
    assert [c.id for c in candidates][:10] == [c.id for c in expected][:10]
    assert "graph is missing" in caplog.text


@pytest.mark.django_db
@pytest.mark.parametrize("rotation", [True, False])
def test_planted_vectors_change_nothing(settings, small_tiers, rng, rotation):
    settings.MEMORY_VECTOR_ROTATION = rotation
    outgrown_tenant(rng, sizes=(1,) * 300)
    vector = rng.normal(size=384)
    before = [c.id for c in found(ALICE, "apollo river", vector)]
    store_drawn(MALLORY, [[("apollo river", vector)] * 600])
    index_tail(user_id=MALLORY, limit=1000)
    path, candidates = path_of(ALICE, vector)
    assert [c.id for c in candidates] == before
    # Copies can crowd the graph only where tenants share directions; what it misses is then found by scanning.
    assert path == "graph" or not rotation


@pytest.mark.django_db
def test_the_graph_is_what_the_planner_takes(small_tiers, rng):
    outgrown_tenant(rng)
    with tenant_transaction(ALICE) as user_hash, sending() as send, planner_settings(send, PINS):
        for scope in ({}, {"source": ""}):
            plan = planned(send, nearest(asked(user_hash, rng.normal(size=384), scope=Scope(**scope))))
            assert scans(plan) == [f"Index Scan {GRAPH_INDEX}"]
            assert "Sort" not in {node["Node Type"] for node in nodes(plan)}


@pytest.mark.django_db
def test_the_best_postings_are_read_in_the_index_alone(small_tiers, rng):
    outgrown_tenant(rng)
    with tenant_transaction(ALICE) as user_hash, sending() as send, planner_settings(send, PINS):
        ask = asked(user_hash, rng.normal(size=384))
        assert scans(planned(send, holding(ask, dict.fromkeys(ask.terms, 1.0)))) == [
            "Index Only Scan memory_terms_best"
        ]


@pytest.mark.django_db
def test_the_pins_end_with_their_statement(small_tiers, rng):
    outgrown_tenant(rng)
    with tenant_transaction(ALICE):
        found(ALICE, "apollo", rng.normal(size=384))
        with connection.cursor() as cursor:
            for name in ("enable_sort", "enable_seqscan", "enable_bitmapscan"):
                cursor.execute(f"SHOW {name}")
                assert cursor.fetchone() == ("on",)


@pytest.mark.django_db
@pytest.mark.parametrize("scope", [{}, {"source": ""}, {"doc_id": "doc-1"}])
@pytest.mark.parametrize("text", ["apollo river", ""])
def test_the_exact_scan_reads_the_tenant_and_never_the_graph(rng, scope, text):
    for user in (ALICE, MALLORY, "person:3"):
        store_drawn(user, drawn_documents(rng, [2] * 60))
    with tenant_transaction(ALICE) as user_hash, sending() as send, planner_settings(send, EXACT_PINS):
        plan = planned(send, exact_scan(asked(user_hash, rng.normal(size=384), text=text, scope=Scope(**scope))))
    (scan,) = [node for node in nodes(plan) if node.get("Relation Name") == "memory_vectors"]
    assert scan["Node Type"] in ("Index Scan", "Bitmap Heap Scan")
    conditions = [node["Index Cond"] for node in nodes(scan) if "Index Cond" in node]
    assert conditions and all(condition.startswith("(user_hash = $") for condition in conditions)
    assert GRAPH_INDEX not in " ".join(scans(plan))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("boundary", [1000, 100])
def test_no_step_is_repeated_for_a_tenant_that_the_statistics_do_not_know(settings, rng, boundary):
    settings.MEMORY_EXACT_SCAN_MAX = boundary
    store_drawn(MALLORY, drawn_documents(rng, [1] * 200))
    with as_owner() as owner, owner.cursor() as cursor:
        for table in ("tenants", "memory_chunks", "memory_vectors"):
            cursor.execute(f"ANALYZE {table}")
    outgrown_tenant(rng, sizes=(3,) * 150)
    with tenant_transaction(ALICE) as user_hash, sending() as send:
        ask = asked(user_hash, rng.normal(size=384))
        if boundary == 1000:
            statement, pins = exact_scan(ask), EXACT_PINS
        else:
            ids = set(MemoryVector.objects.values_list("id", flat=True)[:300])
            statement, pins = rescored(ask, dict.fromkeys(ask.terms, 1.0), ids), PINS
        with planner_settings(send, pins):
            plan = planned(send, statement)
    # Once for a place beside one of the best 24; never once a row, but for looking at one made value.
    places = 5 * 24
    steps = [node for node in nodes(plan) if node["Node Type"] != "CTE Scan"]
    assert max(node["Actual Loops"] for node in steps) <= places
    assert all(node["Actual Rows"] <= 1 for node in nodes(plan) if node["Actual Loops"] > places)
    assert max(node.get("Rows Removed by Filter", 0) for node in nodes(plan)) < places
    assert max(node.get("Rows Removed by Join Filter", 0) for node in nodes(plan)) < places


@pytest.mark.django_db
def test_a_search_is_prepared_once_and_only_where_the_settings_allow_it(rng):
    store_drawn(ALICE, drawn_documents(rng, [2] * 30))
    for _ in range(3):
        found(ALICE, "apollo", rng.normal(size=384))
    assert times_prepared("WITH scanned AS") == 1
    raw, threshold = connection.connection, connection.connection.prepare_threshold
    raw.prepare_threshold = None
    try:
        with connection.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")
        raw._prepared.clear()
        found(ALICE, "apollo", rng.normal(size=384))
        assert times_prepared("WITH scanned AS") == 0
    finally:
        raw.prepare_threshold = threshold


@pytest.mark.django_db(transaction=True)
def test_growing_through_the_boundary_under_load_always_answers(small_tiers, rng):
    """A needle stored first is the first answer of every query, while writers push the tenant over the boundary."""
    vector = rng.normal(size=384)
    (needle,) = store_one(ALICE, "needle", "zeppelin", vector)
    others = rng.normal(size=(200, 384))
    failures: list[object] = []

    def write(share):
        try:
            for number in share:
                store_one(ALICE, f"doc-{number}", "apollo river", others[number])
        except Exception as error:
            failures.append(error)
        finally:
            connections.close_all()

    writers = [threading.Thread(target=write, args=(range(start, 200, 2),)) for start in (0, 1)]
    for writer in writers:
        writer.start()
    answers = []
    while any(writer.is_alive() for writer in writers):
        answers.append(found(ALICE, "zeppelin", vector)[0].id)
    for writer in writers:
        writer.join()
    assert failures == []
    assert answers and set(answers) == {needle}
    assert path_of(ALICE, vector)[0] == "graph"
    with tenant_transaction(ALICE):
        assert MemoryVector.objects.count() == 201


@pytest.mark.django_db(transaction=True)
def test_an_asynchronous_write_moves_rows_too(small_tiers, rng):
    store_drawn(ALICE, drawn_documents(rng, [1] * 110))

    async def write():
        async with await connection.connect_async() as conn:
            await index_memory_chunk(conn, ALICE, "more", "", "apollo", rng.normal(size=384), {})

    async_to_sync(write)()
    with tenant_transaction(ALICE):
        assert MemoryVector.objects.filter(outgrown=True).count() >= 1


@pytest.mark.django_db(transaction=True)
def test_a_scan_after_the_graph_is_planned_as_any_scan(small_tiers, rng, monkeypatch):
    """The pins of the graph are gone when it gives way, also where the transaction ends with the scan."""
    outgrown_tenant(rng)
    seen = []

    def watched(asked, **options):
        with connection.cursor() as cursor:
            for name in PINS:
                cursor.execute(f"SHOW {name}")
                seen.append((name, cursor.fetchone()[0]))
        return exact_scan(asked, **options)

    monkeypatch.setattr("memory.search.candidates.exact_scan", watched)
    monkeypatch.setattr("memory.search.narrowing.MOST", 0)
    assert path_of(ALICE, rng.normal(size=384), doc_id="doc-7")[0] == "exact"
    expected = {name: EXACT_PINS.get(name, "on") for name in PINS if name.startswith("enable_")}
    assert {name: value for name, value in seen if name in expected} == expected
    assert dict(seen)["plan_cache_mode"] == EXACT_PINS["plan_cache_mode"]
    with connection.cursor() as cursor:
        cursor.execute("SHOW enable_seqscan")
        assert cursor.fetchone() == ("on",)
