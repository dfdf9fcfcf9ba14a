"""The plan that a search's statement gets: the generic one, as it is prepared once for all tenants."""

from collections.abc import Iterator
from typing import Any

import psycopg
from django.db import connection
from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer

from memory.search.ranking_sql import Statement
from memory.tenancy.cursors import Send


def planned(send: Send, statement: Statement) -> dict[str, Any]:
    """The plan of a statement, run once, in the open door and under its pins."""
    sql, parameters = statement
    raw = send("SELECT 1").connection
    query = PostgresQuery(Transformer(raw))
    query.convert(sql, parameters)
    with psycopg.ClientCursor(raw) as cursor:
        cursor.execute(b"PREPARE planned AS " + query.query)
        values = [parameters[name] for name in query._order or ()]
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE planned ({', '.join(['%s'] * len(values))})", values)
        ((plans,),) = cursor.fetchall()
        cursor.execute("DEALLOCATE planned")
    return plans[0]["Plan"]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes, itself first."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def scans(plan: dict[str, Any]) -> list[str]:
    """The scans of tables and indexes that were run at all, as "Index Scan memory_vectors_pkey"."""
    return [
        f"{node['Node Type']} {node.get('Index Name') or node['Relation Name']}"
        for node in nodes(plan)
        if ("Index Name" in node or "Relation Name" in node) and node["Actual Loops"]
    ]


def times_prepared(words: str) -> int:
    """How many prepared statements of this connection hold these words."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE position(%s in statement) > 0", [words])
        return int(cursor.fetchone()[0])
