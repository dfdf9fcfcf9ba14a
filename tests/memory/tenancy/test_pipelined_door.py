"""A door whose statements travel together guards and fails as any other."""

import numpy as np
import pytest
from django.db import DatabaseError, connection, transaction
from psycopg.pq import PipelineStatus

from keys.generation import generate_key
from keys.keyring import get_keyring
from memory.exceptions import OutsideTenantTransaction
from memory.rls import open_user_hash, tenant_transaction
from memory.tenancy.cursors import sending
from tests.factories import drawn_documents, store_drawn
from tests.memory.search.searches import found

ALICE, BOB = "person:1", "person:2"
ROWS = "SELECT count(*) FROM memory_vectors"


@pytest.fixture
def stored(rng):
    store_drawn(ALICE, drawn_documents(rng, [2]))
    store_drawn(BOB, drawn_documents(rng, [3]))


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def current_setting():
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('app.user_hash', true)")
        return cursor.fetchone()[0] or ""


def in_pipeline():
    return connection.connection.pgconn.pipeline_status == PipelineStatus.ON


@pytest.mark.django_db(transaction=True)
def test_only_the_users_rows_exist_in_it_and_none_behind_it(stored):
    with tenant_transaction(ALICE, pipelined=True), sending() as send:
        first, second = send(ROWS, ()), send(ROWS, ())
        assert (first.fetchone(), second.fetchone()) == ((2,), (2,))
    assert current_setting() == ""
    with tenant_transaction(BOB, pipelined=True), sending() as send:
        assert send(ROWS, ()).fetchone() == (3,)


@pytest.mark.django_db(transaction=True)
def test_an_error_shows_at_a_fetch_at_the_latest_as_djangos_and_nothing_behind_it_is_done(stored):
    sent = False
    with pytest.raises(DatabaseError), tenant_transaction(ALICE, pipelined=True), sending() as send:
        send("SELECT 1 / 0", ())
        sent = in_pipeline()
        send("DELETE FROM memory_chunks", ()).fetchall()
        raise AssertionError("a statement behind a failed one was run")
    assert sent
    with pytest.raises(OutsideTenantTransaction):
        open_user_hash()
    with tenant_transaction(ALICE, pipelined=True), sending() as send:
        assert send(ROWS, ()).fetchone() == (2,)


@pytest.mark.django_db(transaction=True)
def test_an_error_that_nobody_fetches_shows_at_the_end_and_takes_the_rest_back(stored):
    sent = False
    with pytest.raises(DatabaseError), tenant_transaction(ALICE, pipelined=True), sending() as send:
        send("DELETE FROM memory_chunks", ())
        send("SELECT 1 / 0", ())
        sent = True
    assert sent
    with tenant_transaction(ALICE), sending() as send:
        assert send(ROWS, ()).fetchone() == (2,)


@pytest.mark.django_db(transaction=True)
def test_what_the_server_quotes_of_an_unread_statement_is_not_logged(stored, caplog):
    with pytest.raises(RuntimeError), tenant_transaction(ALICE, pipelined=True), sending() as send:
        send("SELECT CAST(%s AS integer)", ["my secret"])
        raise RuntimeError
    assert "my secret" not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_joining_a_transaction_it_takes_its_setting_back(stored):
    with transaction.atomic():
        with tenant_transaction(ALICE, pipelined=True), sending() as send:
            assert send(ROWS, ()).fetchone() == (2,)
        assert current_setting() == ""


@pytest.mark.django_db(transaction=True)
def test_so_it_does_where_the_caller_commits_by_hand(stored):
    transaction.set_autocommit(False)
    try:
        found(ALICE, "apollo", np.ones(384))
        assert current_setting() == ""
        with connection.cursor() as cursor:
            cursor.execute("SHOW enable_seqscan")
            assert cursor.fetchone() == ("on",)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


@pytest.mark.django_db(transaction=True)
def test_while_several_hmac_keys_are_accepted_it_waits_for_the_users_hash(stored, settings):
    settings.MEMORY_TENANT_HMAC_KEYS_ACCEPTED = [settings.MEMORY_TENANT_HMAC_KEY]
    settings.MEMORY_TENANT_HMAC_KEY = generate_key()
    assert len(get_keyring().hmac_accepted) == 1
    with tenant_transaction(ALICE, pipelined=True), sending() as send:
        assert not in_pipeline()
        assert send(ROWS, ()).fetchone() == (2,)
