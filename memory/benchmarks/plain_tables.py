"""Plain copies of the tenant tables to compare with: no row-level security, no seals, in a throw-away schema.

They have the columns, defaults, indexes, storage and names of the real tables. So the product's own statements run on
them as well, once the search path names their schema.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from pgvector.psycopg import register_vector

from database.roles import connect_as

TABLES = ("tenants", "memory_chunks", "memory_vectors")
FOREIGN_KEY = (
    "ALTER TABLE memory_vectors ADD FOREIGN KEY (user_hash, id)"
    " REFERENCES memory_chunks (user_hash, id) ON DELETE CASCADE"
)


# Postgres' own full-text search, kept up to date by the database: the plain counterpart of the keyword index.
FULL_TEXT = (
    "CREATE FUNCTION words_of(bytea) RETURNS tsvector LANGUAGE sql IMMUTABLE"
    " RETURN to_tsvector('english', convert_from($1, 'UTF8'))",
    "ALTER TABLE memory_chunks ADD words tsvector GENERATED ALWAYS AS (words_of(text_cipher)) STORED",
    "CREATE INDEX ON memory_chunks USING gin (words)",
)


@contextmanager
def plain_tables(schema: str = "benchmark_plain", *, full_text: bool = False) -> Iterator[psycopg.Connection[Any]]:
    """A connection as the owner whose unqualified names are the empty plain tables; they are dropped at the end.

    `full_text` adds Postgres' full-text search over the texts. Raises ImproperlyConfigured without DATABASE_OWNER_URL.
    """
    with owner_connection() as conn:
        conn.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        conn.execute(f"CREATE SCHEMA {schema}")
        use_schema(conn, schema)
        for table in TABLES:
            like = "INCLUDING DEFAULTS INCLUDING INDEXES INCLUDING STORAGE"
            conn.execute(f"CREATE TABLE {schema}.{table} (LIKE public.{table} {like})")
        conn.execute(FOREIGN_KEY)
        for statement in FULL_TEXT if full_text else ():
            conn.execute(statement)
        conn.commit()
        try:
            yield conn
        finally:
            conn.rollback()
            conn.execute(f"DROP SCHEMA {schema} CASCADE")
            conn.commit()


@contextmanager
def owner_connection() -> Iterator[psycopg.Connection[Any]]:
    """A fresh connection as the owner that knows the vector types."""
    conn = connect_as("owner")
    with conn:
        register_vector(conn)
        yield conn


def use_schema(conn: psycopg.Connection[Any], schema: str) -> None:
    """Let unqualified names mean the tables of `schema`; the vector type is still found in `public`."""
    conn.execute(f"SET search_path = {schema}, public")
