"""Rotating the tenant HMAC key: every user moves, whole, and is served meanwhile."""

import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.test import override_settings

from database import embedded_postgres
from keys import heartbeat, leases, rotation, runs, steps
from keys.exceptions import LeaseTaken, MissingKeys, RotationRefused
from keys.generation import generate_key
from keys.keyring import HMAC_KEY, HMAC_KEYS_ACCEPTED, get_keyring, parse_key
from keys.models import KeyRecord, Lease, ProcessHeartbeat, Purpose, RotationRun
from keys.pace import Pace
from keys.rotation import plan, rotate
from keys.status import key_report
from memory.documents.document import Chunk, Document
from memory.erasure import delete_document, erase_user
from memory.index.recipe import configured
from memory.indexing import index_documents
from memory.models import MemoryChunk, MemoryTerm, MemoryVector, Tenant
from memory.rls import tenant_transaction
from memory.rotation import tenant_move
from memory.rotation.hmac_key import HMACKeyMover
from memory.search.retrieval import query_memories
from memory.security import user_hashes
from memory.tenancy.current_hash import user_lock_sql
from tests.factories import recall, remember, texts, vector_of
from tests.memory.rotation.hmac_rotating import (
    BATCH,
    LARGE,
    MEMORIES,
    SMALL,
    assert_all_moved,
    assert_served,
    current_hashes,
    facts,
    hashes_in_rows,
    observing,
    promoted,
    store_all,
    tenant_facts,
)

pytestmark = pytest.mark.django_db(transaction=True)


def run(**options: Any) -> RotationRun:
    report = options.pop("report", None)
    return rotate(HMACKeyMover(**options), started_by="test", pace=Pace(batch=BATCH), report=report)


def serving(**fields: Any) -> None:
    """A process that reported itself just now."""
    keyring = get_keyring()
    known = {
        "sealing_key_id": keyring.sealing.key_id,
        "encryption_key_ids": [keyring.sealing.key_id],
        "hmac_current_key_id": keyring.hmac_current.key_id,
        "hmac_key_ids": [key.key_id for key in keyring.hashing],
    }
    ProcessHeartbeat.objects.create(process=uuid4(), host="web", pid=1, role="wsgi", **(known | fields))


def damage(user_id: str, statement: str, *parameters: Any) -> None:
    with tenant_transaction(user_id), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        assert cursor.rowcount == 1


class TestEverythingWell:
    def test_users_move_whole_and_the_old_key_is_needed_no_more(self) -> None:
        store_all()
        heartbeat.beat("wsgi")
        before = {user_id: (facts(user_id), tenant_facts(user_id)) for user_id in MEMORIES}
        with promoted() as (old, new):
            heartbeat.beat("wsgi")
            finished = run()
            assert (finished.state, finished.verified, finished.failures) == ("finished", True, [])
            assert finished.from_key_ids == [old.key_id]
            assert f"{old.key_id} may be removed" in finished.message
            assert KeyRecord.objects.get(key_id=old.key_id, purpose=Purpose.HMAC).retired_at is not None
            assert_all_moved()
            with override_settings(MEMORY_TENANT_HMAC_KEYS_ACCEPTED=[]):
                assert {user_id: (facts(user_id), tenant_facts(user_id)) for user_id in MEMORIES} == before
                for user_id in MEMORIES:
                    assert_served(user_id)
                assert plan(HMACKeyMover()).tenants_left == 0

    @pytest.mark.parametrize("expires_at", [None, datetime(2001, 1, 1, tzinfo=UTC)])
    def test_whether_rows_may_expire_moves_too(self, expires_at: datetime | None) -> None:
        store_all()
        for user_id in MEMORIES:
            chunks = (Chunk("passing", vector_of("passing")),)
            document = Document("passing", "", chunks, expires_at=expires_at)
            index_documents(user_id=user_id, documents=[document])
        with promoted():
            run()
            for user_id in MEMORIES:
                assert tenant_facts(user_id)[-1] is (expires_at is not None)
                found = texts(recall(user_id, "passing", top_k=50))
                assert ("passing" in found) is (expires_at is None)

    def test_vectors_terms_and_seals_are_made_anew(self) -> None:
        store_all()
        before = stored()
        with promoted():
            run()
            after = stored()
        assert before.keys() == after.keys()
        for row_id in before:
            assert all(old != new for old, new in zip(before[row_id], after[row_id], strict=True))

    def test_a_tenant_that_is_answered_from_the_indexes_is_in_them_before_it_is_flipped(self, settings: Any) -> None:
        settings.MEMORY_EXACT_SCAN_MAX = 5
        store_all()
        with promoted():
            assert run().verified
            assert_served(LARGE)
            with tenant_transaction(LARGE):
                assert MemoryVector.objects.filter(outgrown=False).count() == 0
                assert MemoryTerm.objects.values("id").distinct().count() == 8
            with tenant_transaction(SMALL):
                assert MemoryVector.objects.filter(outgrown=True).count() == 0
            assert hashes_in_rows() == current_hashes()

    def test_a_moved_tenant_is_indexed_as_configured_now(self, settings: Any) -> None:
        settings.MEMORY_VECTOR_ROTATION = False
        store_all()
        settings.MEMORY_VECTOR_ROTATION = True
        with promoted():
            assert run().verified
            for user_id in MEMORIES:
                assert_served(user_id)
                with tenant_transaction(user_id):
                    assert Tenant.objects.get().recipe == configured().as_text()

    def test_the_recipe_still_names_the_model_of_the_embeddings(self, settings: Any) -> None:
        store_all()
        before = configured()
        settings.MEMORY_EMBEDDING_MODEL = "another"
        with promoted():
            assert run().verified
            with tenant_transaction(LARGE):
                assert Tenant.objects.get().recipe == before.as_text()

    def test_progress_and_phases_are_shown(self) -> None:
        store_all()
        seen: list[tuple[str, int, int]] = []
        with promoted():
            run(report=lambda shown: seen.append((shown.phase, shown.rows_done, shown.rows_total)))
        assert list(dict.fromkeys(phase for phase, _, _ in seen)) == ["check", "move", "verify"]
        assert seen[-1] == ("verify", 10, 10)

    def test_a_second_run_finds_nothing_to_move_and_verifies(self) -> None:
        store_all()
        with promoted():
            run()
            assert run().verified

    def test_encryption_may_rotate_in_the_same_breath(self) -> None:
        store_all()
        old = settings.MEMORY_ENCRYPTION_KEY
        new = override_settings(MEMORY_ENCRYPTION_KEY=generate_key(), MEMORY_ENCRYPTION_KEYS_ACCEPTED=[old])
        with promoted(), new:
            run()
            with override_settings(MEMORY_ENCRYPTION_KEYS_ACCEPTED=[]):
                assert_served(LARGE)


class TestMeanwhile:
    """The world goes on between the steps of a move."""

    QUIET = {
        "user ids checked", "small tenant moved", "partial copy cleared", "window copied", "window caught up",
        "caught up", "large tenant flipped", "orphans cleared", "tenant moved", "killed runs cleaned up",
        "tenant verified",
    }  # fmt: skip

    def test_readers_see_everything_at_every_step(self) -> None:
        store_all()
        seen = set()

        def look(step: str) -> None:
            if step in self.QUIET:
                seen.add(step)
                for user_id in MEMORIES:
                    assert sorted(texts(recall(user_id, "memory", top_k=50))) == sorted(MEMORIES[user_id])

        with promoted(), observing(look):
            assert run().verified
        assert seen >= self.QUIET - {"window caught up"}

    def test_what_is_written_and_deleted_at_any_step_is_kept(self) -> None:
        store_all()
        written: list[str] = []
        old_documents = iter(range(8))

        def write(step: str) -> None:
            if step in self.QUIET and step not in ("window caught up", "orphans cleared"):
                text = f"{step}, {len(written)}"
                written.append(text)
                for user_id in MEMORIES:
                    remember(user_id, text, text)
                    remember(user_id, "always the same", text)
                if (number := next(old_documents, None)) is not None:
                    delete_document(user_id=LARGE, doc_id=f"doc-{number}")

        with promoted(), observing(write):
            finished = run()
            assert finished.verified, finished.failures
            assert len(written) > 8
            assert_served(SMALL, [*MEMORIES[SMALL], *written, written[-1]])
            assert_served(LARGE, [*written, written[-1]])
            assert_all_moved()

    def test_a_row_changed_in_place_is_copied_again(self) -> None:
        """By its version alone: neither its id nor its time tells."""
        store_all()

        def change(step: str) -> None:
            if step == "caught up":
                with tenant_transaction(LARGE):
                    chunk = MemoryChunk.objects.get(doc_id="doc-1")
                    chunk.text = "changed in place"  # type: ignore[attr-defined]
                    chunk.save(update_fields=["text_cipher"])

        with promoted(), observing(change):
            assert run().verified
            with tenant_transaction(LARGE):
                assert MemoryChunk.objects.get(doc_id="doc-1").text == "changed in place"  # type: ignore[attr-defined]

    def test_a_user_erased_while_copied_leaves_nothing(self) -> None:
        store_all()

        def erase(step: str) -> None:
            if step == "window copied":
                steps.observer = None
                deleted = erase_user(user_id=LARGE).deleted
                # Eight rows, and the three that were copied so far.
                assert (deleted["memory_vectors"], deleted["memory_chunks"], deleted["tenants"]) == (11, 11, 1)
                assert not hashes_in_rows() & {str(each) for each in user_hashes(LARGE)}

        with promoted(), observing(erase):
            assert run().verified
            assert hashes_in_rows() == {str(user_hashes(SMALL)[0])}

    def test_a_user_who_comes_meanwhile_is_made_once_under_the_new_key(self) -> None:
        store_all()

        def come(step: str) -> None:
            if step == "tenant moved":
                remember("person:9", "diary", "Mercury")

        with promoted(), observing(come):
            assert run().verified
            assert hashes_in_rows() == {*current_hashes(), str(user_hashes("person:9")[0])}

    def test_while_a_door_of_the_user_stays_open_the_others_wait_no_longer_than_the_timeout(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tenant_move, "LOCK_TIMEOUT_MS", 50)
        store_all()
        with promoted():
            with another_door(LARGE):
                failed = run()
            assert failed.state == "failed"
            assert [failure["reason"] for failure in failed.failures] == [tenant_move.TenantBusy.__doc__]
            assert_served(LARGE)
            assert run().verified
            assert_all_moved()


class TestRefused:
    def test_while_a_process_does_not_accept_both_keys(self) -> None:
        store_all()
        with promoted() as (old, new):
            serving(hmac_key_ids=[old.key_id], hmac_current_key_id=old.key_id)
            with pytest.raises(RotationRefused, match="would not find or open what has moved: wsgi web:1"):
                run()
            ProcessHeartbeat.objects.update(hmac_key_ids=[new.key_id], hmac_current_key_id=new.key_id)
            with pytest.raises(RotationRefused, match=old.key_id):
                run()
            ProcessHeartbeat.objects.update(hmac_key_ids=[new.key_id, old.key_id], hmac_current_key_id=old.key_id)
            with pytest.raises(RotationRefused, match="still make new users under another key"):
                run()
            assert not RotationRun.objects.exists()
            ProcessHeartbeat.objects.update(hmac_current_key_id=new.key_id)
            assert run().verified

    def test_stops_when_such_a_process_turns_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rotation, "LOOK_AT_PROCESSES_SECONDS", 0.0)
        store_all()

        def turn_up(step: str) -> None:
            if step == "window copied" and not ProcessHeartbeat.objects.exists():
                serving(hmac_key_ids=[get_keyring().hmac_current.key_id])

        with promoted(), observing(turn_up):
            with pytest.raises(RotationRefused):
                run()
            assert RotationRun.objects.get().state == "interrupted"
            for user_id in MEMORIES:
                assert_served(user_id)
            ProcessHeartbeat.objects.all().delete()
            steps.observer = None
            assert run().verified
            assert_all_moved()

    def test_beside_the_other_rotation(self) -> None:
        store_all()
        with promoted(), leases.hold("rotation"):
            holder = "another process"
            Lease.objects.update(holder=holder)
            with pytest.raises(LeaseTaken, match=holder):
                run()
            assert not RotationRun.objects.exists()
            Lease.objects.all().delete()

    def test_when_the_old_key_is_already_gone(self) -> None:
        store_all()
        old = settings.MEMORY_TENANT_HMAC_KEY
        with (
            override_settings(MEMORY_TENANT_HMAC_KEY=generate_key()),
            pytest.raises(MissingKeys, match=parse_key(old).key_id),
        ):
            run()
        assert_served(LARGE)


class TestFaults:
    def test_user_ids_that_do_not_open_are_reported_before_anything_starts(self) -> None:
        store_all()
        small, large = (str(user_hashes(user_id)[0]) for user_id in (SMALL, LARGE))
        damage(SMALL, "UPDATE tenants SET user_cipher = set_byte(user_cipher, 20, get_byte(user_cipher, 20) # 1)")
        with promoted() as (old, new):
            failed = run()
            assert (failed.state, failed.verified) == ("failed", False)
            assert [(each["tenant"], each["table"]) for each in failed.failures] == [(small[:8], "tenants")]
            assert "nothing was moved" in failed.message
            assert hashes_in_rows() == {small, large}
            moved = run(skip_unreadable=True)
            assert moved.state == "failed"
            assert f"served under {old.key_id}" in moved.message
            assert hashes_in_rows() == {small, str(user_hashes(LARGE)[0])}
            assert_served(SMALL)

    def test_another_users_sealed_id_is_reported(self) -> None:
        store_all()
        with tenant_transaction(SMALL):
            tenant = Tenant.objects.get()
            tenant.user_id = "person:77"  # type: ignore[attr-defined]
            tenant.save()
        with promoted():
            (failure,) = run().failures
            assert failure["reason"] == "no HMAC key held here makes its hash from its user id"

    @pytest.mark.usefixtures("readable_names")
    @pytest.mark.parametrize("user_id", [SMALL, LARGE])
    def test_a_flipped_bit_keeps_its_tenant_where_it_is_and_the_rest_moves(self, user_id: str) -> None:
        store_all()
        stays = str(user_hashes(user_id)[0])
        damage(
            user_id,
            "UPDATE memory_chunks SET text_cipher = set_byte(text_cipher, 20, get_byte(text_cipher, 20) # 1)"
            " WHERE doc_id = 'doc-1'",
        )
        with tenant_transaction(user_id):
            row_id = str(MemoryChunk.objects.get(doc_id="doc-1").id)
        (other,) = set(MEMORIES) - {user_id}
        with promoted() as (old, _):
            failed = run()
            assert failed.state == "failed"
            assert {each["row"] for each in failed.failures} == {stays[:8], row_id}
            assert hashes_in_rows() == {stays, str(user_hashes(other)[0])}
            found = query_memories(user_id=user_id, query="x", embedding=vector_of("x"), top_k=50)
            assert (len(found.matches), found.integrity_failures) == (len(MEMORIES[user_id]) - 1, 1)
            delete_document(user_id=user_id, doc_id="doc-1")
            assert run().verified
            assert_all_moved()

    def test_an_encryption_key_removed_too_early_loses_nothing(self) -> None:
        store_all()
        old = settings.MEMORY_ENCRYPTION_KEY
        with promoted():
            with override_settings(MEMORY_ENCRYPTION_KEY=generate_key()):
                failed = run()
                assert failed.state == "failed"
                assert {each["key_id"] for each in failed.failures} == {parse_key(old).key_id}
            assert run().verified
            for user_id in MEMORIES:
                assert_served(user_id)

    def test_a_user_known_under_both_hashes_is_left_alone(self) -> None:
        """A process that accepted one key only made the user a second time."""
        store_all()
        new = generate_key()
        with override_settings(MEMORY_TENANT_HMAC_KEY=new):
            remember(SMALL, "diary", "Mercury")
        with promoted(new):
            failed = run()
            assert failed.state == "failed"
            assert tenant_move.TenantKnownTwice.__doc__ in [each["reason"] for each in failed.failures]
            assert_served(SMALL, ["Mercury"])

    def test_the_database_restarted_in_the_middle(self, cluster_dir: str) -> None:
        store_all()
        restarts: list[str] = []

        def restart(step: str) -> None:
            if step in ("window copied", "last changes copied") and step not in restarts:
                restarts.append(step)
                embedded_postgres.stop(cluster_dir)
                embedded_postgres.ensure_running(cluster_dir, throwaway=True)

        with promoted(), observing(restart):
            assert run().verified
            assert len(restarts) == 2
            assert_all_moved()
            for user_id in MEMORIES:
                assert_served(user_id)

    def test_the_lease_is_kept_while_a_long_copy_is_cleared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store_all()
        ends: list[datetime] = []

        def look(step: str) -> None:
            if step == "orphans cleared":
                ends.append(Lease.objects.get().expires_at)

        with promoted():
            with observing(interrupt_when("last changes copied")), pytest.raises(KeyboardInterrupt):
                run()
            monkeypatch.setattr(runs, "SAVE_EVERY_SECONDS", 0.0)
            with observing(look):
                assert run().verified
        # Three batches of the half copy, and three of the old rows.
        assert len(ends) >= 6
        assert ends == sorted(set(ends))


class TestKeyStatus:
    def test_says_at_every_stage_what_is_safe(self) -> None:
        store_all()
        old, new = settings.MEMORY_TENANT_HMAC_KEY, generate_key()
        old_id, new_id = parse_key(old).key_id, parse_key(new).key_id
        with override_settings(MEMORY_TENANT_HMAC_KEYS_ACCEPTED=[new]):
            serving(hmac_key_ids=[old_id])
            assert any(f"Do not make {new_id} the HMAC key yet: wsgi web:1" in step for step in key_report().next_steps)
            ProcessHeartbeat.objects.update(hmac_key_ids=[old_id, new_id])
            assert any(f"safe to make it {HMAC_KEY}, with {old_id}" in step for step in key_report().next_steps)
            assert key_report().attention == []
        with promoted(new):
            assert any("wsgi web:1 makes new users under" in each for each in key_report().attention)
            ProcessHeartbeat.objects.update(hmac_current_key_id=new_id)
            assert any(f"Keep {old_id}: 2 users" in step for step in key_report().next_steps)
            assert any("run manage.py rotate_hmac_key" in each for each in key_report().attention)
            assert key_report().removable == []
            with observing(interrupt_when("window copied")), pytest.raises(KeyboardInterrupt):
                run()
            assert any("interrupted: run manage.py rotate_hmac_key" in each for each in key_report().attention)
            assert key_report().removable == []
            run()
            assert (key_report().attention, key_report().removable) == ([], [old_id])
            assert any(f"{old_id} may be removed from {HMAC_KEYS_ACCEPTED}" in step for step in key_report().next_steps)


class TestCommand:
    def test_moves_and_says_what_may_be_removed(self) -> None:
        store_all()
        with promoted() as (old, new):
            out = io.StringIO()
            call_command("rotate_hmac_key", "--dry-run", stdout=out)
            assert f"2 tenants with 10 chunks are to move to {new.key_id}" in out.getvalue()
            assert plan(HMACKeyMover()).tenants_left == 2
            call_command("rotate_hmac_key", "--batch", "3", stdout=out)
            assert f"{old.key_id} may be removed" in out.getvalue()
            assert_all_moved()

    def test_names_failures_and_fails(self) -> None:
        store_all()
        damage(SMALL, "UPDATE tenants SET user_cipher = set_byte(user_cipher, 20, 0), enc_key_id = enc_key_id")
        err = io.StringIO()
        with promoted(), pytest.raises(CommandError, match="does not open"):
            call_command("rotate_hmac_key", stdout=io.StringIO(), stderr=err)
        assert "tenants" in err.getvalue()
        assert SMALL not in err.getvalue()

    def test_sigterm_leaves_the_run_interrupted(self) -> None:
        store_all()
        before = signal.getsignal(signal.SIGTERM)
        try:
            with promoted():
                stop = observing(lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == "window copied" else None)
                with stop, pytest.raises(CommandError, match="Run it again") as caught:
                    call_command("rotate_hmac_key", "--batch", "3", stdout=io.StringIO())
                assert caught.value.returncode == 130
                assert RotationRun.objects.get().state == "interrupted"
                assert run().verified
        finally:
            signal.signal(signal.SIGTERM, before)


def interrupt_when(wanted: str) -> Callable[[str], None]:
    def interrupt(step: str) -> None:
        if step == wanted:
            raise KeyboardInterrupt

    return interrupt


def stored() -> dict[str, tuple[bytes, ...]]:
    """What a dump has of every row that the keys make: by id, the seals, vector and terms."""
    with connections["default"].connect_as("backup") as conn, conn.cursor() as cursor:
        cursor.execute(
            "SELECT c.id::text, c.user_hash, text_cipher, meta_cipher, emb_cipher, embedding::text, lexical::text"
            " FROM memory_chunks c JOIN memory_vectors v ON v.user_hash = c.user_hash AND v.id = c.id"
        )
        return {row_id: tuple(rest) for row_id, *rest in cursor.fetchall()}


@contextmanager
def another_door(user_id: str) -> Iterator[None]:
    """Another process' door, that stays open."""
    with psycopg.connect(**connections["default"].parameters_of("app")) as conn:
        conn.execute(user_lock_sql(user_hashes(user_id), exclusive=False).encode())
        yield
