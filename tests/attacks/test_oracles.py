"""Whether an answer tells that somebody else has a row: keys, errors, estimates, the catalogue, and 404s."""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from memory.index.names import DOC_ID, name_label
from memory.security import hmac_user
from memory.tenancy.live_database import tenant_tables
from tests.attacks.population import CAROL, USERS, Population, as_text, connected, foreign_marks
from tests.attacks.tally import tried
from tests.factories import ALICE, API, BOB, api_client, index, make_service, vector

pytestmark = pytest.mark.django_db
UNLIKE = ("X-Request-ID", "Content-Length")  # the length of what was asked for
NOBODY = "0" * 64
_SEAL = "decode(repeat('00', 40), 'hex')"
_CHUNK = (
    "INSERT INTO memory_chunks (user_hash, id, doc_id, source, chunk_index, text_cipher, meta_cipher, emb_cipher,"
    f" enc_key_id) SELECT {{hash}}, {{id}}, {{doc}}, '', 0, {_SEAL}, {_SEAL}, {_SEAL}, ''"
)
_TENANT = f"INSERT INTO tenants (user_hash, user_cipher, enc_key_id, hmac_key_id) SELECT '{{hash}}', {_SEAL}, '', ''"
_TERM = "INSERT INTO memory_terms (user_hash, term, id, weight)"


@pytest.fixture
def conn(population: Population) -> Iterator[psycopg.Connection[Any]]:
    with connected() as conn:
        yield conn
        conn.rollback()


def answered(conn: psycopg.Connection[Any], own: str, statement: str) -> tuple[str, ...]:
    """The code, message, detail and result of a statement in a user's transaction, without the values that it named."""
    conn.execute(f"BEGIN; SET LOCAL app.user_hash = '{own}'")
    try:
        cursor = conn.execute(statement)
        said: tuple[str, ...] = ("", str(cursor.rowcount), as_text(cursor.fetchall()) if cursor.description else "")
    except psycopg.Error as error:
        said = (error.sqlstate or "", str(error.diag.message_primary), str(error.diag.message_detail))
    finally:
        conn.execute("ROLLBACK")
    return said


# {hash}, {id}, {doc}: of a row that exists, or does not; what is answered must be the same.
PROBES = {
    "primary key": _CHUNK.format(hash="'{hash}'", id="'{id}'", doc="'x'"),
    "primary key, own hash": _CHUNK.format(hash="'{own}'", id="'{id}'", doc="'x'"),
    "unique document": _CHUNK.format(hash="'{hash}'", id="gen_random_uuid()", doc="'{doc}'"),
    "unique document, own hash": _CHUNK.format(hash="'{own}'", id="gen_random_uuid()", doc="'{doc}'"),
    "do nothing": _CHUNK.format(hash="'{hash}'", id="'{id}'", doc="'x'") + " ON CONFLICT DO NOTHING",
    "do update": _CHUNK.format(hash="'{hash}'", id="'{id}'", doc="'x'")
    + " ON CONFLICT (user_hash, id) DO UPDATE SET source = 'x' RETURNING source",
    "tenant": _TENANT,
    "tenant, do nothing": f"{_TENANT} ON CONFLICT DO NOTHING",
    "tenant, do update": f"{_TENANT} ON CONFLICT (user_hash) DO UPDATE SET recipe = 'x'",
    "foreign key, own hash": f"{_TERM} VALUES ('{{own}}', 7, '{{id}}', 1)",
    "foreign key": f"{_TERM} VALUES ('{{hash}}', 7, '{{id}}', 1)",
    "moved onto a foreign row": "UPDATE memory_chunks SET user_hash = '{hash}', id = '{id}'",
    "moved onto a foreign id": "UPDATE memory_chunks SET id = '{id}' WHERE chunk_index = 0 AND doc_id LIKE '%0'",
    "read": "SELECT * FROM memory_chunks WHERE id = '{id}'",
    "read by document": "SELECT * FROM memory_chunks WHERE user_hash = '{hash}' AND doc_id = '{doc}'",
    "locked": "SELECT 1 FROM memory_chunks WHERE id = '{id}' FOR UPDATE NOWAIT",
    "deleted": "DELETE FROM memory_chunks WHERE id = '{id}'",
    "updated": "UPDATE memory_chunks SET source = 'x' WHERE doc_id = '{doc}'",
    "merged": "MERGE INTO memory_chunks c USING (VALUES ('{id}'::uuid)) v (id) ON c.id = v.id WHEN MATCHED THEN DELETE",
    "divided by zero": "SELECT 1 / (length(doc_id) - length('{doc}')) FROM memory_chunks WHERE doc_id = '{doc}'",
    "cast": "SELECT doc_id::int FROM memory_chunks WHERE id = '{id}'",
    "counted": "SELECT count(*) FROM memory_chunks WHERE doc_id >= '{doc}' AND doc_id <= '{doc}'",
}


@pytest.mark.parametrize("probe", PROBES)
def test_a_foreign_row_that_exists_is_answered_like_one_that_does_not(
    conn: psycopg.Connection[Any], population: Population, probe: str
) -> None:
    own = population[ALICE].user_hash
    statement = PROBES[probe]
    absent = {"hash": NOBODY, "id": uuid.uuid4(), "doc": "nobodys-document-0", "own": own}
    for user_id in (BOB, CAROL):
        for chunk_id in (mark for mark in population[user_id].marks if len(mark) == 36):
            present = {
                "hash": population[user_id].user_hash,
                "id": chunk_id,
                "doc": f"{USERS[user_id]}s-document-0",
                "own": own,
            }
            there, not_there = (answered(conn, own, statement.format(**names)) for names in (present, absent))
            assert without(there, present) == without(not_there, absent)
            tried("keys, documents and rows probed whether they exist")


def without(said: tuple[str, ...], names: dict[str, Any]) -> list[str]:
    """An answer without the values that the statement had in it."""
    return [shape(part, (names["id"], names["doc"])).replace(names["hash"], "HASH") for part in said]


class TestCatalogue:
    """What the database tells any role about its tables, after ANALYZE has looked at all rows."""

    @pytest.fixture(autouse=True)
    def _analyzed(self, population: Population) -> None:
        with connected("owner") as owner:
            owner.execute(f"ANALYZE {', '.join(tenant_tables())}")

    @pytest.mark.parametrize("role", ["app", "census"])
    @pytest.mark.parametrize(
        "view",
        [
            "pg_stats", "pg_stats_ext", "pg_stats_ext_exprs", "pg_class", "pg_attribute", "pg_attrdef", "pg_constraint",
            "pg_index", "pg_indexes", "pg_tables", "pg_views", "pg_policies", "pg_description", "pg_depend", "pg_locks",
            "pg_settings", "pg_db_role_setting", "pg_stat_user_tables", "pg_stat_user_indexes", "pg_statio_user_tables",
            "pg_stat_database", "pg_stat_progress_analyze", "pg_prepared_xacts", "pg_prepared_statements", "pg_cursors",
            "pg_sequences", "pg_roles", "pg_stat_ssl", "pg_replication_slots", "pg_largeobject_metadata",
            "information_schema.columns", "information_schema.tables", "information_schema.check_constraints",
            "information_schema.column_privileges", "information_schema.element_types",
        ],
    )  # fmt: skip
    def test_no_value_of_a_row_is_in_it(self, population: Population, role: str, view: str) -> None:
        with connected(role) as conn:
            shown = as_text(conn.execute(f"SELECT v.*, v::text FROM {view} v").fetchall())
        assert not foreign_marks(shown, population, None)
        tried("views of the catalogue read for values of rows")

    @pytest.mark.parametrize("relation", ["pg_statistic", "pg_statistic_ext_data", "pg_authid", "pg_largeobject"])
    def test_the_sampled_values_themselves_are_closed(self, population: Population, relation: str) -> None:
        with connected() as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(f"SELECT * FROM {relation}")

    def test_sampled_values_are_there_for_the_owner_alone(self, population: Population) -> None:
        """So that the test above is about something: with the policies away, pg_stats has the values."""
        with connected("owner") as owner, owner.transaction(force_rollback=True):
            for table in tenant_tables():
                owner.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
            shown = as_text(owner.execute("SELECT most_common_vals::text FROM pg_stats").fetchall())
            found = bool(foreign_marks(shown, population, None))
        assert found or population[ALICE].rows["memory_chunks"] < 2

    def test_activity_of_other_sessions_tells_no_text_and_no_user_id(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It tells hashes: the sessions of one role see each other's statements. What is stored is sealed before."""
        client = api_client(make_service("activity"), user="planted-user")
        seen: list[str] = []
        execute = psycopg.Cursor.execute

        def execute_and_look(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            result = execute(cursor, *args, **kwargs)
            looking = "SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            with monkeypatch.context() as patch:
                patch.setattr(psycopg.Cursor, "execute", execute)
                seen.append(as_text(other.execute(looking).fetchall()))
            return result

        with connected() as other:
            monkeypatch.setattr(psycopg.Cursor, "execute", execute_and_look)
            index(client, "planted-text", metadata={"k": "planted-metadata"})
            client.post(f"{API}/memories/query", {"query": "planted-query", "embedding": vector()}, "application/json")
        assert any("tenants" in statements or "memory_" in statements for statements in seen)
        assert not [word for word in ("text", "metadata", "query", "user") for one in seen if f"planted-{word}" in one]
        tried("looks at the statements of other sessions", len(seen))


class TestNotFound:
    """Another user's row over HTTP: the same bytes, and the same statements, as for a row that never was."""

    def calls(self, client: Client, chunk_id: Any, doc_id: str) -> Iterator[Any]:
        for address in (f"{API}/memories/{chunk_id}", f"{API}/documents/{doc_id}"):
            for method in ("GET", "DELETE", "PATCH", "PUT", "HEAD", "OPTIONS"):
                yield client.generic(method, address, "{}", "application/json")
        yield client.get(f"{API}/memories", {"doc_id": doc_id})
        yield client.get(f"{API}/memories", {"source": "hers"})
        body = {"query": "hers", "embedding": vector(), "filters": {"doc_id": doc_id}}
        yield client.post(f"{API}/memories/query", body, "application/json")
        for verb in ("get", "delete"):
            yield client.post(f"{API}/memories/{verb}", {"ids": [str(chunk_id)]}, "application/json")

    def test_the_answers_are_the_same_and_so_are_the_statements(self) -> None:
        secret = make_service()
        alice, bob = api_client(secret, user="alice"), api_client(secret, user="bob")
        index(bob, "his own")
        (chunk_id,) = index(alice, "hers", doc_id="her-document", source="hers")["chunk_ids"]
        self.asked(bob, (uuid.uuid4(), "warming-up"))  # what only a first call sends: counters of the throttle
        there, statements = self.asked(bob, (chunk_id, "her-document"))
        absent, statements_absent = self.asked(bob, (uuid.uuid4(), "a-document"))
        for one, other in zip(there, absent, strict=True):
            assert one == other
        for one, other in zip(statements, statements_absent, strict=True):
            assert one == other
        assert alice.get(f"{API}/memories/{chunk_id}").status_code == 200
        tried("answers compared with those for a row that never was", len(there))
        tried("statements compared with those for a row that never was", len(statements))

    def asked(self, client: Client, target: tuple[Any, str]) -> tuple[list[Any], list[str]]:
        """Answers and statements, without what was asked for."""
        with CaptureQueriesContext(connection) as sent:
            answers = [comparable(answer, target) for answer in self.calls(client, *target)]
        label = name_label(hmac_user("service:acme:bob"), DOC_ID, target[1])
        statements = [query["sql"].replace(label, "LABEL") for query in sent.captured_queries]
        return answers, [without_times(shape(statement, target)) for statement in statements]


def comparable(response: Any, target: tuple[Any, str]) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers, without what was asked for, the clock, and the counting down of `RateLimit`."""
    body = response.content.decode()
    if body and response["Content-Type"].endswith("json"):
        body = str({name: value for name, value in response.json().items() if name not in ("timings_ms", "request_id")})
    headers = {name: value for name, value in response.headers.items() if name not in UNLIKE}
    if "RateLimit" in headers:
        headers["RateLimit"] = re.sub(r"\b([rt])=\d+", r"\1=N", headers["RateLimit"])
    return response.status_code, shape(body, target), headers


def shape(text: str, target: tuple[Any, str]) -> str:
    chunk_id = uuid.UUID(str(target[0]))
    return text.replace(str(chunk_id), "ID").replace(chunk_id.hex, "ID").replace(target[1], "DOC")


def without_times(statement: str) -> str:
    return re.sub(r"'20\d\d-[^']*'|[\d.]+", "N", statement)
