"""Measures recall and latency of questions by tenant size, against plain pgvector and other vector stores.

All engines hold the same vectors and are asked the same questions in turns. Recall is counted against brute force in
numpy: of the fused score for hybrid answers, of the cosine for all others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import psycopg
from django.conf import settings
from django.test.utils import override_settings

from memory.benchmarks.brute_force import BruteForce
from memory.benchmarks.command import progress
from memory.benchmarks.index import write_plain
from memory.benchmarks.peers import Peer
from memory.benchmarks.plain_tables import owner_connection, plain_tables
from memory.benchmarks.plans import explain
from memory.benchmarks.population import TURNS, Filled, Memories, Population, batches, fill, row_number, store
from memory.benchmarks.report import PACKAGES, Report, Row, describe_versions
from memory.benchmarks.tenants import erase, throwaway_tenants
from memory.benchmarks.timing import latencies
from memory.search.retrieval import CANDIDATES, query_memories
from memory.search.search_parameters import Weights
from memory.security import user_hashes

# Tenants of about these sizes are asked, where there are any, and always the largest.
SIZES = (100, 1_000, 5_000, 10_000, 100_000)
WARM_UP = 3
DENSE = Weights(dense=1.0, lexical=0.0, neighbour=0.0)

HYBRID, PRODUCT = "sealed memory, hybrid", "sealed memory"
UNROTATED, PLAIN = "sealed memory, rotation off", "plain pgvector"

PLAIN_SQL = f"""
SELECT c.doc_id, c.chunk_index, c.source, c.text_cipher, c.meta_cipher, c.created_at, best.distance
FROM (
    SELECT id, embedding <#> %(vector)b AS distance FROM memory_vectors
    WHERE user_hash = %(user_hash)s ORDER BY embedding <#> %(vector)b LIMIT {CANDIDATES}
) best JOIN memory_chunks c ON c.user_hash = %(user_hash)s AND c.id = best.id
ORDER BY best.distance
"""  # noqa: S608

NOTES = (
    f"recall = share of the {CANDIDATES} best rows by brute force in numpy that the engine's {CANDIDATES} best hold;"
    " of the fused score for hybrid, of the cosine for the others, which all answer by vectors alone.",
    "sealed memory = query_memories() with the embedding given and no rerank: door, candidates under row-level security"
    f" over rotated vectors, {CANDIDATES} texts and metadata opened. hybrid: the same with keywords and neighbours.",
    "plain pgvector = the same rows without row-level security, rotation and seals, scanned exactly by the tenant's"
    " index, one statement through psycopg, texts included.",
    "Other stores answer with row numbers, without texts; chroma and qdrant-local: a collection per tenant,"
    " chroma-filter: one collection and a metadata filter, lancedb: one table and a scalar index on the tenant.",
    "All engines take turns, question by question, in a random order, in one process on one machine.",
)

Search = Callable[[str, np.ndarray], list[int]]


@dataclass(frozen=True)
class Plan:
    """What to measure. `variants`: also with rotation off and on plain tables."""

    population: Population
    questions: int = 50
    keep: bool = False
    variants: bool = True
    verbosity: int = 1


@dataclass(frozen=True)
class Subject:
    """A tenant that is asked: its rank by size (0 is the largest), its memories, and its questions."""

    tenant: int
    memories: Memories
    questions: list[tuple[str, np.ndarray]]

    @property
    def rows(self) -> int:
        return len(self.memories.texts)


def measure_query(plan: Plan, peers: Sequence[Peer]) -> Report:
    """Fill or reuse the tenants, ask every engine, and erase what was filled unless it is to be kept."""
    packages = (*PACKAGES, "chromadb", "lancedb", "qdrant-client")
    report = Report("benchmark_query", notes=list(NOTES), versions=describe_versions(packages))
    population = plan.population
    try:
        filled = fill(population, verbosity=plan.verbosity)
        settle()
        subjects = [subject(population, tenant, plan.questions) for tenant in asked_tenants(population.sizes)]
        fill_peers(peers, population, subjects, plan.verbosity)
        with engines(plan, subjects, peers) as searches:
            report.results += list(_compare(population, subjects, searches, plan.verbosity))
        report.results += [plan_row(population, each, weights) for each in subjects for weights in (DENSE, None)]
        report.notes.append(_filling(population, filled))
    finally:
        if not plan.keep:
            erase([population.user_id(tenant) for tenant in range(population.tenants)])
    return report


def asked_tenants(sizes: Sequence[int]) -> list[int]:
    """Which tenants are asked, smallest first: the nearest to each of SIZES within a factor of two, and the largest."""
    chosen = {0}
    for size in SIZES:
        distances = [abs(np.log(each / size)) for each in sizes]
        nearest = int(np.argmin(distances))
        if distances[nearest] <= np.log(2):
            chosen.add(nearest)
    return sorted(chosen, reverse=True)


def subject(population: Population, tenant: int, questions: int) -> Subject:
    """A tenant with its memories and questions."""
    memories = population.memories(tenant)
    return Subject(tenant, memories, population.questions(tenant, memories, questions))


def settle() -> None:
    """Vacuum and analyze the tables, as autovacuum would sooner or later."""
    with owner_connection() as conn:
        conn.commit()
        conn.autocommit = True
        conn.execute("VACUUM (ANALYZE) memory_chunks, memory_vectors")


def fill_peers(peers: Sequence[Peer], population: Population, subjects: Sequence[Subject], verbosity: int) -> None:
    """Store vectors with the other engines: of the tenants that are asked, or of all where they share an index."""
    known = {each.tenant: each.memories.vectors for each in subjects}
    for peer in peers:
        tenants = range(population.tenants) if peer.whole else known
        for tenant in progress(tenants, f"Filling {peer.name}", verbosity=verbosity, unit="tenant"):
            peer.add(tenant, known[tenant] if tenant in known else population.memories(tenant).vectors)
        peer.ready()


@contextmanager
def engines(
    plan: Plan, subjects: Sequence[Subject], peers: Sequence[Peer]
) -> Iterator[Mapping[str, Callable[[Subject], Search]]]:
    """Every engine by its name: a function from a tenant to the search that answers its questions."""
    population = plan.population
    searches: dict[str, Callable[[Subject], Search]] = {
        PRODUCT: lambda each: product_search(population.user_id(each.tenant), DENSE),
        HYBRID: lambda each: product_search(population.user_id(each.tenant), Weights.configured()),
    }
    with ExitStack() as stack:
        if plan.variants:
            searches[UNROTATED] = stack.enter_context(_unrotated(population, subjects))
            searches[PLAIN] = stack.enter_context(_plain(population, subjects))
        for peer in peers:
            searches[peer.name] = partial(peer_search, peer)
        yield searches


def product_search(user_id: str, weights: Weights) -> Search:
    """The search of the product: `query_memories()` without reranking."""

    def search(query: str, vector: np.ndarray) -> list[int]:
        result = query_memories(
            user_id=user_id, query=query, top_k=CANDIDATES, embedding=vector, weights=weights, rerank=False
        )
        return [row_number(match.doc_id, match.chunk_index) for match in result.matches]

    return search


def plain_search(conn: psycopg.Connection[Any], user_hash: str) -> Search:
    """The search of plain pgvector."""

    def search(query: str, vector: np.ndarray) -> list[int]:
        with conn.cursor(binary=True) as cursor:
            cursor.execute(PLAIN_SQL, {"user_hash": user_hash, "vector": vector})
            return [row_number(row[0], row[1]) for row in cursor.fetchall()]

    return search


def peer_search(peer: Peer, each: Subject) -> Search:
    """The search of another vector store."""
    return lambda query, vector: peer.search(each.tenant, vector, CANDIDATES)


def ask(
    each: Subject, searches: Mapping[str, Search], truth: Mapping[str, Sequence[list[int]]]
) -> Iterator[tuple[str, float, np.ndarray]]:
    """Per engine its name, mean recall, and milliseconds per question.

    The engines take turns question by question, in a random order: an engine is slower after one whose threads are
    still winding down, or that has filled the processor's caches.
    """
    rng = np.random.default_rng(each.tenant)
    recalls: dict[str, list[float]] = {name: [] for name in searches}
    times: dict[str, list[float]] = {name: [] for name in searches}
    rounds = [*range(min(WARM_UP, len(each.questions))), *range(len(each.questions))]
    for place, number in enumerate(rounds):
        query, vector = each.questions[number]
        for name in rng.permutation(list(searches)):
            search = searches[name]
            started = perf_counter()
            found = search(query, vector)
            elapsed = (perf_counter() - started) * 1000
            if place >= len(rounds) - len(each.questions):
                best = truth[HYBRID if name == HYBRID else PRODUCT][number]
                recalls[name].append(len(set(found).intersection(best)) / len(best))
                times[name].append(elapsed)
    for name in searches:
        yield name, float(np.mean(recalls[name])), np.array(times[name])


def plan_row(population: Population, each: Subject, weights: Weights | None) -> Row:
    """What Postgres does for the tenant's first question; None: hybrid, as configured."""
    query, vector = each.questions[0]
    explained = explain(
        population.user_id(each.tenant),
        query=query,
        vector=vector,
        weights=weights or Weights.configured(),
        limit=CANDIDATES,
    )
    return {
        "tenant_rows": each.rows,
        "score": "dense" if weights else "hybrid",
        "pages": explained.pages,
        "pages_read": explained.pages_read,
        "plan": ", ".join(explained.scans),
    }


def _compare(
    population: Population,
    subjects: Sequence[Subject],
    searches: Mapping[str, Callable[[Subject], Search]],
    verbosity: int,
) -> Iterator[Row]:
    for each in progress(subjects, "Asking", verbosity=verbosity, unit="tenant"):
        brute_force = BruteForce(
            each.memories.vectors, each.memories.texts, np.arange(len(each.memories.texts)) // TURNS
        )
        truth = {
            name: [brute_force.best(query, vector, weights, CANDIDATES) for query, vector in each.questions]
            for name, weights in ((PRODUCT, DENSE), (HYBRID, Weights.configured()))
        }
        for name, recall, times in ask(each, {name: make(each) for name, make in searches.items()}, truth):
            yield {
                "tenant_rows": each.rows,
                "engine": name,
                f"recall@{CANDIDATES}": recall,
                **{f"{percent}_ms": value for percent, value in latencies(times, 50, 95).items()},
            }


@contextmanager
def _unrotated(population: Population, subjects: Sequence[Subject]) -> Iterator[Callable[[Subject], Search]]:
    """The same memories of the asked tenants, written and asked with the rotation off."""
    users = {each.tenant: population.user_id(each.tenant, "-unrotated") for each in subjects}
    with throwaway_tenants(list(users.values())):
        with override_settings(MEMORY_VECTOR_ROTATION=False):
            for each in subjects:
                store(users[each.tenant], each.memories)

        def make(each: Subject) -> Search:
            inner = product_search(users[each.tenant], DENSE)

            def search(query: str, vector: np.ndarray) -> list[int]:
                # Assigned, not overridden: an override's signals would empty caches between two timed questions.
                settings.MEMORY_VECTOR_ROTATION, before = False, settings.MEMORY_VECTOR_ROTATION
                try:
                    return inner(query, vector)
                finally:
                    settings.MEMORY_VECTOR_ROTATION = before

            return search

        yield make


@contextmanager
def _plain(population: Population, subjects: Sequence[Subject]) -> Iterator[Callable[[Subject], Search]]:
    with plain_tables() as conn:
        for each in subjects:
            for batch in batches(each.memories):
                write_plain(conn, population.user_id(each.tenant), batch)
        conn.commit()
        conn.autocommit = True
        conn.execute("VACUUM (ANALYZE) memory_chunks, memory_vectors")
        # Use the tenant's index, as in a full table; with the few tenants of this copy the planner would not.
        conn.execute("SET enable_seqscan = off")
        yield lambda each: plain_search(conn, user_hashes(population.user_id(each.tenant))[0])
        conn.autocommit = False


def _filling(population: Population, filled: Filled) -> str:
    size = f"{population.rows:,} rows of {population.tenants:,} tenants"
    if not filled.written:
        return f"{size}, left by an earlier run with --keep."
    return (
        f"{size}; {filled.written:,} written in {filled.seconds:.0f} s, {filled.written / filled.seconds:,.0f} rows/s."
    )
