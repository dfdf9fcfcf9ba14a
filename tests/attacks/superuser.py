"""A copy of the test database's schema, on a server with a superuser: to weaken what guards it, and undo that."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from django.db import connections
from psycopg import sql

from database import setup_sql
from tests.bare_postgres import SUPERUSER, BarePostgres, running_bare_postgres

DATABASE = "memory"
HASHES = ("a" * 64, "b" * 64)
_BLOB = b"\0" * 40
_ROW = {
    "tenants": "INSERT INTO tenants (user_hash, user_cipher, enc_key_id, hmac_key_id)"
    " VALUES (%(hash)s, %(blob)s, '', '')",
    "memory_chunks": "INSERT INTO memory_chunks (user_hash, id, doc_id, source, chunk_index, text_cipher, meta_cipher,"
    " emb_cipher, enc_key_id) VALUES (%(hash)s, %(id)s, 'doc', '', 0, %(blob)s, %(blob)s, %(blob)s, '')",
    "memory_vectors": "INSERT INTO memory_vectors (user_hash, id, embedding, doc_id, source, chunk_index, labels)"
    " VALUES (%(hash)s, %(id)s, %(vector)s::vector, 'doc', '', 0, '{}')",
    "memory_terms": "INSERT INTO memory_terms (user_hash, term, id, weight) VALUES (%(hash)s, 1, %(id)s, 1)",
    "memory_operations": "INSERT INTO memory_operations (user_hash, id, number, payload_cipher, enc_key_id)"
    " VALUES (%(hash)s, %(id)s, 1, %(blob)s, '')",
    "memory_requests": "INSERT INTO memory_requests (user_hash, id, key_hash, record_cipher, enc_key_id)"
    " VALUES (%(hash)s, %(id)s, 'key', %(blob)s, '')",
}
PARENTS_FIRST = tuple(_ROW)


@contextmanager
def copied_schema(folder: Path) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to a copy of the test database's schema, with a row of two users in each table."""
    with running_bare_postgres(folder) as server:
        _set_up(server)
        with server.connect(database=DATABASE) as admin:
            admin.autocommit = False
            for user_hash in HASHES:
                for table in PARENTS_FIRST:
                    admin.execute(_ROW[table], _values(user_hash))
            admin.commit()
            yield admin


def _set_up(server: BarePostgres) -> None:
    with server.connect() as admin:
        for statement in setup_sql.create_roles():
            admin.execute(statement)
        admin.execute(f"CREATE DATABASE {DATABASE} OWNER memory_owner TEMPLATE template0 ENCODING 'UTF8'")
        for statement in setup_sql.database_privileges(DATABASE):
            admin.execute(statement)
    with server.connect(database=DATABASE) as admin:
        for statement in (*setup_sql.extensions(), *setup_sql.schema_privileges()):
            admin.execute(statement)
    owner = connections["default"].parameters_of("owner")  # type: ignore[attr-defined]
    dump = [server.programs / "pg_dump", "--schema-only", "-h", owner["host"], "-U", "memory_owner", owner["dbname"]]
    schema = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
    psql = [server.programs / "psql", "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-h", server.host, DATABASE]
    environment = os.environ | {"PGUSER": SUPERUSER, "PGPASSWORD": SUPERUSER}
    done = subprocess.run(psql, input=schema, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _values(user_hash: str) -> dict[str, Any]:
    return {
        "hash": user_hash,
        "id": f"{user_hash[:8]}-0000-7000-8000-000000000000",
        "blob": _BLOB,
        "vector": str([1.0] + [0.0] * 383),
    }


@contextmanager
def undone(admin: psycopg.Connection[Any]) -> Iterator[psycopg.Cursor[Any]]:
    """A cursor of the superuser whose work is rolled back."""
    with admin.transaction(force_rollback=True), admin.cursor() as cursor:
        yield cursor


@contextmanager
def acting_as(cursor: psycopg.Cursor[Any], role: str, user_hash: str | None = None) -> Iterator[None]:
    """What is sent inside is sent as `role`, in whose transaction a user may be named."""
    cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
    cursor.execute("SELECT set_config('app.user_hash', %s, true)", [user_hash or ""])
    try:
        yield
    finally:
        if cursor.connection.info.transaction_status != psycopg.pq.TransactionStatus.INERROR:
            cursor.execute("RESET ROLE")


def insert(cursor: psycopg.Cursor[Any], table: str, user_hash: str) -> None:
    """Insert a row of this user, unless there is one."""
    cursor.execute(_ROW[table] + " ON CONFLICT DO NOTHING", _values(user_hash))
