"""Rotating the encryption key over real rows."""

import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import override_settings

from keys import heartbeat, nonces, runs, steps
from keys.exceptions import LeaseTaken, MissingKeys, RotationRefused
from keys.generation import generate_key
from keys.leases import take
from keys.models import KeyRecord, ProcessHeartbeat, RotationRun
from keys.pace import Pace
from keys.rotation import plan, rotate
from keys.runs import LEASE
from memory.exceptions import UnknownKeyId
from memory.listing import get_chunk
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.rotation.encryption_key import EncryptionKeyMover
from memory.rotation.resealing import ALONG_THE_KEY, AT_THEIR_PLACES, sealed_tables
from memory.security import aad_for, hmac_user, seal
from memory.tenancy.cursors import sending
from memory.tenancy.planner_settings import planner_settings
from tests.factories import stored_texts
from tests.memory.rotation.rotating import (
    ROWS_EACH,
    USERS,
    assert_all_readable,
    assert_only_opens_with,
    hash_prefix,
    key_ids,
    promoted,
    store,
    store_all,
    tamper,
    text_of,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("readable_names")]
TOTAL = len(USERS) * (ROWS_EACH + 1)
SMALL = Pace(batch=3)


@pytest.fixture(autouse=True)
def _unobserved_and_unpaid() -> Iterator[None]:
    nonces.forget()
    yield
    steps.observer = None


def run(**kwargs) -> RotationRun:
    return rotate(EncryptionKeyMover(), started_by="test", **{"pace": SMALL, **kwargs})


def test_every_row_ends_under_the_new_key_alone() -> None:
    store_all()
    with promoted() as (old, new):
        finished = run()
        assert (finished.state, finished.verified, finished.phase) == ("finished", True, "verify")
        assert (finished.from_key_ids, finished.to_key_id) == ([old.key_id], new.key_id)
        assert finished.rows_done == finished.rows_total == TOTAL
        assert f"{old.key_id} may be removed" in finished.message
        assert_only_opens_with(new, old)
        assert_all_readable()
        assert KeyRecord.objects.get(key_id=old.key_id).retired_at
        assert not KeyRecord.objects.filter(key_id=new.key_id, retired_at__isnull=False).exists()


def test_the_old_key_can_be_removed_afterwards() -> None:
    store_all()
    new = generate_key()
    with promoted(new):
        run()
    with promoted(new, accept_old=False):
        assert_all_readable()


def test_updated_at_and_vectors_are_left_alone() -> None:
    store("person:1", 1)
    before = _row_facts()
    with promoted():
        run()
    assert _row_facts() == before


def _row_facts() -> list[tuple]:
    with tenant_transaction("person:1"), connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.id, c.created_at, c.updated_at, v.xmin::text"
            " FROM memory_chunks c JOIN memory_vectors v USING (user_hash, id)"
        )
        return cursor.fetchall()


# --- Refusals ---------------------------------------------------------------------------------------------------------
def test_a_live_process_without_the_new_key_stops_it_before_anything_changes() -> None:
    store_all()
    heartbeat.beat("wsgi")
    ProcessHeartbeat.objects.update(host="web-7", pid=42)
    with promoted() as (old, _new):
        with pytest.raises(RotationRefused, match="wsgi web-7:42"):
            run()
        assert key_ids() == {old.key_id}
        assert not RotationRun.objects.exists()
        ProcessHeartbeat.objects.update(seen_at=Now() - timedelta(seconds=61))
        assert run().verified


def test_a_process_that_still_seals_under_the_old_key_keeps_it_from_being_declared_removable() -> None:
    store_all()
    new = generate_key()
    with promoted(new) as (old, new_key):
        heartbeat.beat("wsgi")
        ProcessHeartbeat.objects.update(host="web-7", sealing_key_id=old.key_id)
        failed = run()
        assert (failed.state, failed.verified) == ("failed", False)
        assert "web-7" in failed.message and "removed" not in failed.message
        ProcessHeartbeat.objects.update(sealing_key_id=new_key.key_id)
        assert run().verified


def test_the_old_key_removed_too_early_is_named_and_nothing_is_lost() -> None:
    store("person:1", 1)
    with tenant_transaction("person:1"):
        chunk_id = MemoryChunk.objects.get().id
    new = generate_key()
    with promoted(new, accept_old=False):
        with pytest.raises(UnknownKeyId) as caught:
            get_chunk(user_id="person:1", chunk_id=chunk_id)
        (old_id,) = key_ids()
        assert old_id in str(caught.value) and str(chunk_id) in str(caught.value)
        with pytest.raises(MissingKeys, match=old_id):
            plan(EncryptionKeyMover())
        with pytest.raises(MissingKeys, match=old_id):
            run()
    with promoted(new):
        assert stored_texts("person:1") == [text_of("person:1", 1)]
        assert run().verified


def test_two_rotations_at_once() -> None:
    store_all()
    with promoted():
        assert take(LEASE, "another process", 30)
        with pytest.raises(LeaseTaken, match="another process"):
            run()


# --- Faults -----------------------------------------------------------------------------------------------------------
def test_a_flipped_bit_is_reported_and_the_rest_is_rotated() -> None:
    store_all()
    flip = "UPDATE memory_chunks SET text_cipher = set_byte(text_cipher, 20, get_byte(text_cipher, 20) # 1)"
    tamper("person:2", f"{flip} WHERE doc_id = %s", "doc-3")
    with promoted() as (old, new):
        failed = run()
        assert (failed.state, failed.verified, failed.rows_failed) == ("failed", False, 1)
        (failure,) = failed.failures
        assert (failure["table"], failure["tenant"], failure["key_id"]) == (
            "memory_chunks",
            hash_prefix("person:2"),
            old.key_id,
        )
        with tenant_transaction("person:2"):
            assert failure["row"] == str(MemoryChunk.objects.get(doc_id="doc-3").id)
            assert {chunk.enc_key_id for chunk in MemoryChunk.objects.exclude(doc_id="doc-3")} == {new.key_id}
        errors = StringIO()
        with pytest.raises(CommandError, match="1 rows open under no key"):
            call_command("rotate_encryption_key", stdout=StringIO(), stderr=errors)
        assert failure["row"] in errors.getvalue()
        tamper("person:2", f"{flip} WHERE doc_id = %s", "doc-3")
        assert run().verified
        assert_only_opens_with(new, old)


def test_too_many_failures_stop_the_run_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_FAILURES", 2)
    store_all()
    for user_id in USERS:
        tamper(user_id, "UPDATE memory_chunks SET text_cipher = reverse(text_cipher) WHERE doc_id = 'doc-0'")
    with promoted() as (old, _):
        failed = run()
        assert (failed.state, failed.rows_failed) == ("failed", 2)
        assert failed.message.startswith("Stopped at 2 rows that failed, and there may be more.")
        assert old.key_id in key_ids()  # of the third tenant, which was not visited


def test_a_wrong_user_id_seal_is_reported() -> None:
    store_all()
    foreign = seal(b"person:2", aad_for(hmac_user("person:2")))
    tamper("person:1", "UPDATE tenants SET user_cipher = %s WHERE user_hash = %s", foreign, hmac_user("person:1"))
    with promoted():
        failed = run()
        assert failed.state == "failed"
        assert [(failure["table"], failure["row"]) for failure in failed.failures] == [
            ("tenants", hash_prefix("person:1"))
        ]


@pytest.mark.parametrize("claim", ["new", "nobody's"])
def test_a_key_id_that_drifted_from_its_blob_is_repaired(claim: str) -> None:
    store_all()
    with promoted() as (old, new):
        named = new.key_id if claim == "new" else old.key_id
        if claim == "new":
            # Names the new key, is sealed under the old one: only the verifying pass can find it.
            tamper("person:1", "UPDATE memory_chunks SET enc_key_id = %s WHERE doc_id = 'doc-1'", named)
        else:
            # Names the old key, is sealed under the new one.
            with tenant_transaction("person:1"):
                chunk = MemoryChunk.objects.get(doc_id="doc-1")
                chunk.text, chunk.metadata, chunk.embedding = chunk.text, chunk.metadata, chunk.embedding
                chunk.save()
            tamper("person:1", "UPDATE memory_chunks SET enc_key_id = %s WHERE doc_id = 'doc-1'", named)
        assert run().verified
        assert_only_opens_with(new, old)
        assert_all_readable()


def test_a_row_that_breaks_after_its_key_id_moved_is_found_by_the_verifying_pass() -> None:
    store_all()
    with promoted() as (old, new):
        run()
        tamper("person:3", "UPDATE memory_chunks SET meta_cipher = reverse(meta_cipher) WHERE doc_id = 'doc-0'")
        failed = run()
        assert (failed.state, failed.rows_failed) == ("failed", 1)
        assert failed.failures[0]["tenant"] == hash_prefix("person:3")


# --- Beside writers ---------------------------------------------------------------------------------------------------
def test_a_writer_on_every_row_while_it_rotates() -> None:
    """After each of the first batches every row of every tenant is written again."""
    store_all()
    with promoted() as (old, new):
        written = []

        def write(step: str) -> None:
            if step == "batch re-sealed" and len(written) < 6:
                written.append(step)
                for user_id in USERS:
                    with tenant_transaction(user_id):
                        for chunk in MemoryChunk.objects.all():
                            chunk.metadata = {"written": len(written)}
                            chunk.save(update_fields=["meta_cipher"])

        steps.observer = write
        assert run().verified
        assert len(written) == 6
        assert_only_opens_with(new, old)
        assert_all_readable()


def test_rows_that_a_process_with_the_old_key_writes_behind_the_cursor_are_visited_again() -> None:
    store_all()
    old_value = settings.MEMORY_ENCRYPTION_KEY
    with promoted() as (old, new):
        new_value = settings.MEMORY_ENCRYPTION_KEY
        written: list[str] = []

        def write(step: str) -> None:
            if step in ("moving pass ended", "verifying pass ended") and step not in written:
                written.append(step)
                with override_settings(MEMORY_ENCRYPTION_KEY=old_value, MEMORY_ENCRYPTION_KEYS_ACCEPTED=[new_value]):
                    store("person:1", 1, 2)

        steps.observer = write
        assert run().verified
        assert len(written) == 2
        assert_only_opens_with(new, old)
        assert_all_readable()


def test_a_row_that_a_writer_has_locked_is_taken_on_a_later_pass() -> None:
    store_all()
    locked, release = threading.Event(), threading.Event()

    def write() -> None:
        try:
            with tenant_transaction("person:1"):
                MemoryChunk.objects.filter(doc_id="doc-2").update(source="edited")  # under the tenant's lock
                locked.set()
                assert release.wait(20)
        finally:
            connection.close()

    writer = threading.Thread(target=write)
    with promoted() as (old, new):
        writer.start()
        assert locked.wait(20)

        def let_go(step: str) -> None:
            if step == "moving pass ended":
                release.set()

        steps.observer = let_go
        try:
            # The writer holds the tenant's row for the whole first pass: neither it nor its chunk may hold us up.
            assert run().verified
        finally:
            release.set()
            writer.join()
        assert_only_opens_with(new, old)
        with tenant_transaction("person:1"):
            assert MemoryChunk.objects.get(doc_id="doc-2").source == "edited"


def test_rows_deleted_and_tenants_added_meanwhile_do_no_harm() -> None:
    store_all()
    with promoted() as (old, new):
        done = []

        def between(step: str) -> None:
            if step == "batch re-sealed" and not done:
                done.append(step)
                with tenant_transaction("person:3"):
                    MemoryChunk.objects.filter(doc_id="doc-6").delete()
                store("person:4", 1, 2)

        steps.observer = between
        assert run().verified
        assert key_ids() == {new.key_id}
        assert len(stored_texts("person:4")) == 2


# --- Pace, plan, command ----------------------------------------------------------------------------------------------
def test_the_rate_is_kept() -> None:
    store_all()
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with promoted():
        run(pace=Pace(batch=500, max_rate=10.0, sleep=sleep, clock=lambda: now[0]))
    # Two passes over 24 rows, at ten rows a second.
    assert now[0] == pytest.approx(2 * TOTAL / 10.0)


def test_a_limited_rate_takes_small_batches() -> None:
    assert [Pace(batch=500, max_rate=rate).rows for rate in (0, 10, 1_000, 100_000)] == [500, 20, 100, 500]


def test_dry_run_changes_nothing() -> None:
    store_all()
    out = StringIO()
    with promoted() as (old, new):
        call_command("rotate_encryption_key", "--dry-run", stdout=out)
        assert key_ids() == {old.key_id}
    assert f"{TOTAL} of {TOTAL} rows would be re-sealed under {new.key_id}" in out.getvalue()
    assert not RotationRun.objects.exists()


def test_the_command_says_what_may_be_removed() -> None:
    store_all()
    out = StringIO()
    with promoted() as (old, new):
        call_command("rotate_encryption_key", "--batch", "5", stdout=out)
        assert f"Rotating to key {new.key_id}: {TOTAL} of {TOTAL} rows are under another key." in out.getvalue()
        assert f"Every row opens under key {new.key_id} alone. {old.key_id} may be removed." in out.getvalue()


def test_inside_a_transaction_it_is_refused() -> None:
    with promoted(), pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        run()


# --- The planner is left no choice ------------------------------------------------------------------------------------
def test_rows_are_read_along_the_key_and_written_at_their_places() -> None:
    store("person:1", *range(ROWS_EACH))
    table = sealed_tables()["memory_chunks"]
    reading = f"EXPLAIN {table.select} AND enc_key_id <> 'x' ORDER BY id LIMIT 5 FOR NO KEY UPDATE SKIP LOCKED"
    writing = f"EXPLAIN {table.update}"
    with tenant_transaction("person:1") as user_hash, sending() as send, planner_settings(send, ALONG_THE_KEY):
        plan = "\n".join(line for (line,) in send(reading, {"tenant": user_hash, "after": None}).fetchall())
        assert "Index Scan using memory_chunks_pkey" in plan and "Sort" not in plan, plan
        assert re.search(r"Index Cond: .*user_hash = .*id > ", plan), plan
        with planner_settings(send, AT_THEIR_PLACES):
            seals_and_mac = [[b"1"] for _ in (*table.columns, "chunk_mac")]
            found = send(writing, ["new", ["(0,1)"], *seals_and_mac, user_hash]).fetchall()
        plan = "\n".join(line for (line,) in found)
        assert "Tid Scan on memory_chunks" in plan and "Index" not in plan and "Seq" not in plan, plan
