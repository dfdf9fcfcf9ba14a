"""A door whose transaction begins with its settings, and statements that travel together in it, guard as any other."""

import os
import socket

import numpy as np
import psycopg
import pytest
from django.db import DatabaseError, OperationalError, connection, transaction
from psycopg.pq import PipelineStatus, TransactionStatus

from keys.generation import generate_key
from keys.keyring import get_keyring
from memory.exceptions import OutsideTenantTransaction
from memory.rls import open_user_hash, tenant_transaction
from memory.tenancy.cursors import pipeline, sending
from tests.factories import drawn_documents, store_drawn
from tests.memory.search.searches import found

ALICE, BOB = "person:1", "person:2"
ROWS = "SELECT count(*) FROM memory_vectors"
PLANNER = {"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan"}

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stored(rng):
    store_drawn(ALICE, drawn_documents(rng, [2]))
    store_drawn(BOB, drawn_documents(rng, [3]))


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def shown(setting):
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting(%s, true)", [setting])
        return cursor.fetchone()[0] or ""


def current_setting():
    return shown("app.user_hash")


def in_pipeline():
    return connection.connection.pgconn.pipeline_status == PipelineStatus.ON


def planner():
    return {name: shown(name) for name in PLANNER}


class TestTheTransactionsBeginning:
    def test_names_the_user_and_sets_the_planner_until_its_end(self, stored):
        before = planner()
        with tenant_transaction(ALICE, planner=PLANNER) as user_hash, sending() as send:
            assert (current_setting(), planner()) == (user_hash, PLANNER)
            assert send(ROWS, ()).fetchone() == (2,)
        assert (current_setting(), planner()) == ("", before)
        with tenant_transaction(BOB), sending() as send:
            assert send(ROWS, ()).fetchone() == (3,)

    def test_is_one_message(self, stored, monkeypatch):
        connection.ensure_connection()
        waited = []
        monkeypatch.setattr(psycopg.Connection, "wait", noting(waited, psycopg.Connection.wait))
        with tenant_transaction(ALICE, planner=PLANNER):
            assert connection.connection.info.transaction_status == TransactionStatus.INTRANS
            assert not waited
        assert waited == ["_commit_gen"]

    def test_leaves_nothing_open_when_it_fails(self, stored):
        with pytest.raises(DatabaseError), tenant_transaction(ALICE, planner={"no_such_setting_at_all": "1"}):
            raise AssertionError("the door is open")
        with pytest.raises(OutsideTenantTransaction):
            open_user_hash()
        assert not connection.in_atomic_block and current_setting() == ""
        with tenant_transaction(ALICE), sending() as send:
            assert send(ROWS, ()).fetchone() == (2,)

    @pytest.mark.parametrize("how", ["closed", "cut off"])
    def test_says_that_the_database_is_away_on_a_connection_that_broke(self, stored, how):
        connection.ensure_connection()
        if how == "closed":
            connection.connection.close()
        else:
            with socket.socket(fileno=os.dup(connection.connection.fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OperationalError), tenant_transaction(ALICE):
            raise AssertionError("the door is open")
        connection.close()
        with tenant_transaction(ALICE), sending() as send:
            assert send(ROWS, ()).fetchone() == (2,)

    def test_does_not_reach_a_later_transaction(self, stored):
        with tenant_transaction(ALICE, planner=PLANNER):
            pass
        with transaction.atomic():
            assert current_setting() == ""

    def test_is_left_to_a_transaction_that_is_joined_which_gets_its_own_settings_back(self, stored):
        with transaction.atomic():
            before = planner()
            with tenant_transaction(ALICE, planner=PLANNER) as user_hash, sending() as send:
                assert (current_setting(), planner()) == (user_hash, PLANNER)
                assert send(ROWS, ()).fetchone() == (2,)
            assert (current_setting(), planner()) == ("", before)

    def test_is_left_to_the_door_around_it_too(self, stored):
        with tenant_transaction(ALICE) as user_hash:
            before = planner()
            with tenant_transaction(ALICE, planner=PLANNER):
                assert planner() == PLANNER
            assert (current_setting(), planner()) == (user_hash, before)

    def test_is_left_to_a_caller_who_commits_by_hand(self, stored):
        transaction.set_autocommit(False)
        try:
            found(ALICE, "apollo", np.ones(384))
            assert current_setting() == ""
            assert shown("enable_seqscan") == "on"
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    def test_waits_for_the_users_hash_while_several_hmac_keys_are_accepted(self, stored, settings):
        settings.MEMORY_TENANT_HMAC_KEYS_ACCEPTED = [settings.MEMORY_TENANT_HMAC_KEY]
        settings.MEMORY_TENANT_HMAC_KEY = generate_key()
        assert len(get_keyring().hmac_accepted) == 1
        with tenant_transaction(ALICE, planner=PLANNER), sending() as send:
            assert send(ROWS, ()).fetchone() == (2,)
            assert planner() == PLANNER


class TestStatementsThatTravelTogether:
    def test_find_the_users_rows(self, stored):
        with tenant_transaction(ALICE), sending() as send, pipeline():
            first, second = send(ROWS, ()), send(ROWS, ())
            assert in_pipeline()
            assert (first.fetchone(), second.fetchone()) == ((2,), (2,))

    def test_fail_at_a_fetch_at_the_latest_with_djangos_error_and_nothing_behind_is_done(self, stored):
        sent = False
        with pytest.raises(DatabaseError), tenant_transaction(ALICE), sending() as send, pipeline():
            send("SELECT 1 / 0", ())
            sent = in_pipeline()
            send("DELETE FROM memory_chunks", ()).fetchall()
            raise AssertionError("a statement behind a failed one was run")
        assert sent
        with tenant_transaction(ALICE), sending() as send:
            assert send(ROWS, ()).fetchone() == (2,)

    def test_fail_at_the_end_where_nobody_fetches_and_the_rest_is_taken_back(self, stored):
        sent = False
        with pytest.raises(DatabaseError), tenant_transaction(ALICE), sending() as send, pipeline():
            send("DELETE FROM memory_chunks", ())
            send("SELECT 1 / 0", ())
            sent = True
        assert sent
        with tenant_transaction(ALICE), sending() as send:
            assert send(ROWS, ()).fetchone() == (2,)

    def test_what_the_server_quotes_of_an_unread_one_is_not_logged(self, stored, caplog):
        with pytest.raises(RuntimeError), tenant_transaction(ALICE), sending() as send, pipeline():
            send("SELECT CAST(%s AS integer)", ["my secret"])
            raise RuntimeError
        assert "my secret" not in caplog.text

    def test_need_a_door(self):
        with pytest.raises(OutsideTenantTransaction), pipeline():
            raise AssertionError("there is no door")


def noting(waited, inner):
    """`inner`, psycopg's wait, noting what is waited for; a change of autocommit sends nothing."""

    def wait(conn, steps, *args, **kwargs):
        if steps.__name__ != "_set_autocommit_gen":
            waited.append(steps.__name__)
        return inner(conn, steps, *args, **kwargs)

    return wait
