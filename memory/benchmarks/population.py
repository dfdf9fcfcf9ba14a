"""Fills many tenants of Zipf sizes with synthetic memories, through the product's own write path."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from django.conf import settings

from memory.benchmarks.command import progress
from memory.benchmarks.synthetic import FIRST_RANK, Synthetic, zipf_sizes
from memory.benchmarks.tenants import benchmark_user, erase
from memory.documents.document import Chunk, Document
from memory.indexing import index_documents
from memory.models import Tenant
from memory.rls import tenant_transaction

# Memories come as conversations of four turns, so that neighbours count.
TURNS = 4
DOCUMENTS_PER_CALL = 125


@dataclass(frozen=True)
class Memories:
    """One tenant's texts and their embeddings, float32 (n, d). Row i is turn i % 4 of document i // 4."""

    texts: list[str]
    vectors: np.ndarray

    def documents(self) -> Iterator[Document]:
        """The rows as documents to be stored."""
        chunks = [Chunk(text, vector) for text, vector in zip(self.texts, self.vectors, strict=True)]
        for number, first in enumerate(range(0, len(chunks), TURNS)):
            yield Document(str(number), "benchmark", tuple(chunks[first : first + TURNS]), {"number": number})


def row_number(doc_id: str, chunk_index: int) -> int:
    """Which of the tenant's rows a found chunk is."""
    return int(doc_id) * TURNS + chunk_index


@dataclass(frozen=True)
class Population:
    """`rows` memories of `tenants` users, `words` words each. The same numbers always mean the same memories."""

    rows: int
    tenants: int
    words: int = 30
    seed: int = 0

    @property
    def sizes(self) -> list[int]:
        """Rows of each tenant, the largest first."""
        return zipf_sizes(self.rows, self.tenants)

    def user_id(self, tenant: int, variant: str = "") -> str:
        """The user who holds the memories of a tenant, or a variant of them."""
        made = f"{FIRST_RANK}-{self.rows}-{self.tenants}-{self.words}-{self.seed}"
        return benchmark_user(f"query-{made}{variant}-{tenant}")

    def memories(self, tenant: int) -> Memories:
        """The memories of a tenant (0 is the largest)."""
        source, size = self._source(tenant), self.sizes[tenant]
        return Memories(list(source.texts(size, self.words)), source.vectors(size))

    def questions(self, tenant: int, memories: Memories, count: int) -> list[tuple[str, np.ndarray]]:
        """Questions near memories of the tenant: a vector beside one, and four of its words with four others."""
        source = self._source(tenant, offset=self.tenants)
        rng = np.random.default_rng([self.seed, tenant])
        asked = rng.integers(len(memories.texts), size=count)
        others = list(source.texts(count, TURNS))
        vectors = source.near(memories.vectors[asked])
        words = [rng.choice(memories.texts[row].split(), size=4) for row in asked]
        return [(" ".join([*own, other]), vector) for own, other, vector in zip(words, others, vectors, strict=True)]

    def _source(self, tenant: int, offset: int = 0) -> Synthetic:
        return Synthetic(settings.MEMORY_EMBEDDING_DIM, self.seed, stream=tenant + offset + 1)


@dataclass(frozen=True)
class Filled:
    """What filling took: rows written now (the others were there) and seconds."""

    written: int
    seconds: float


def fill(population: Population, *, verbosity: int = 1) -> Filled:
    """Store every tenant's memories. A tenant that has the right number of chunks already is left as it is."""
    started, written = perf_counter(), 0
    sizes = population.sizes
    for tenant in progress(range(population.tenants), "Filling", verbosity=verbosity, unit="tenant"):
        user_id = population.user_id(tenant)
        held = _chunk_count(user_id)
        if held != sizes[tenant]:
            if held:
                erase([user_id])
            store(user_id, population.memories(tenant))
            written += sizes[tenant]
    return Filled(written, perf_counter() - started)


def store(user_id: str, memories: Memories) -> None:
    """Write a tenant's memories in batches."""
    for batch in batches(memories):
        index_documents(user_id=user_id, documents=batch)


def batches(memories: Memories) -> Iterator[Sequence[Document]]:
    """A tenant's documents, a call's worth at a time."""
    documents = list(memories.documents())
    for first in range(0, len(documents), DOCUMENTS_PER_CALL):
        yield documents[first : first + DOCUMENTS_PER_CALL]


def _chunk_count(user_id: str) -> int:
    with tenant_transaction(user_id):
        return Tenant.objects.values_list("chunk_count", flat=True).first() or 0
