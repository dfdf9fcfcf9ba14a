"""Other vector stores that run inside a process, each used as its documentation recommends for many tenants.

They hold unsealed vectors, without the texts, and answer with row numbers: less work than the product does.
Requirements: requirements-bench.txt. Each package is imported when it is used, so that nothing else needs it.
"""

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

INSTALL = "pip install -r requirements-bench.txt"
# LanceDB's documentation calls its exact search fast enough below this, and recommends a vector index above it.
LANCE_INDEX_FROM = 100_000
CHROMA_BATCH = 5_000


class Peer(Protocol):
    """A store to compare with. `whole`: it holds all tenants in one index, so all of them have to be written."""

    name: str
    whole: bool

    def add(self, tenant: int, vectors: np.ndarray) -> None:
        """Store a tenant's vectors, float32 (n, d) of unit length; row i is to be found as i."""

    def ready(self) -> None:
        """Finish after the last `add`: write what was collected, build indexes."""

    def search(self, tenant: int, vector: np.ndarray, limit: int) -> list[int]:
        """The tenant's nearest rows, nearest first."""


class MissingPeer(Exception):
    """A package is not installed; the message says how to install it."""


def open_peers(names: list[str], dim: int, folder: Path) -> Iterator[Peer]:
    """The named stores, empty, under `folder`. Raises MissingPeer."""
    for name in names:
        package, make = PEERS[name]
        if find_spec(package) is None:
            raise MissingPeer(f"{package} is not installed: {INSTALL}, or leave {name} out of --peers.")
        place = folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        yield make(dim, place)


class ChromaPerTenant:
    """A collection per tenant (HNSW, default settings)."""

    name = "chroma"
    whole = False

    def __init__(self, dim: int, folder: Path) -> None:
        self._client = _chroma(folder)
        self._collections: dict[int, Any] = {}

    def add(self, tenant: int, vectors: np.ndarray) -> None:
        collection = self._collections[tenant] = _chroma_collection(self._client, f"tenant-{tenant}")
        for first in range(0, len(vectors), CHROMA_BATCH):
            part = vectors[first : first + CHROMA_BATCH]
            collection.add(ids=[str(first + i) for i in range(len(part))], embeddings=part)

    def ready(self) -> None:
        pass

    def search(self, tenant: int, vector: np.ndarray, limit: int) -> list[int]:
        found = self._collections[tenant].query(query_embeddings=[vector], n_results=limit, include=[])
        return [int(row) for row in found["ids"][0]]


class ChromaFiltered:
    """One collection (HNSW, default settings), the tenant in the metadata."""

    name = "chroma-filter"
    whole = True

    def __init__(self, dim: int, folder: Path) -> None:
        self._collection = _chroma_collection(_chroma(folder), "all")
        self._waiting: list[tuple[int, np.ndarray]] = []

    def add(self, tenant: int, vectors: np.ndarray) -> None:
        self._waiting.append((tenant, vectors))

    def ready(self) -> None:
        # In full batches: a call for each small tenant takes longer than its rows.
        flat = np.concatenate([vectors for _, vectors in self._waiting])
        rows = [(tenant, row) for tenant, vectors in self._waiting for row in range(len(vectors))]
        for first in range(0, len(rows), CHROMA_BATCH):
            part = rows[first : first + CHROMA_BATCH]
            self._collection.add(
                ids=[f"{tenant}-{row}" for tenant, row in part],
                embeddings=flat[first : first + CHROMA_BATCH],
                metadatas=[{"tenant": tenant} for tenant, _ in part],
            )
        self._waiting = []

    def search(self, tenant: int, vector: np.ndarray, limit: int) -> list[int]:
        found = self._collection.query(query_embeddings=[vector], n_results=limit, where={"tenant": tenant}, include=[])
        return [int(row.split("-")[1]) for row in found["ids"][0]]


class Lance:
    """LanceDB: one table, a scalar index on the tenant, filtered before the search; from 100,000 rows IVF_PQ."""

    name = "lancedb"
    whole = True

    def __init__(self, dim: int, folder: Path) -> None:
        import lancedb
        import pyarrow

        self._arrow = pyarrow
        self._dim = dim
        columns = [("tenant", pyarrow.int32()), ("row", pyarrow.int32())]
        schema = pyarrow.schema([*columns, ("vector", pyarrow.list_(pyarrow.float32(), dim))])
        self._table: Any = lancedb.connect(folder).create_table("vectors", schema=schema)
        self._waiting: list[tuple[int, np.ndarray]] = []

    def add(self, tenant: int, vectors: np.ndarray) -> None:
        self._waiting.append((tenant, vectors))

    def ready(self) -> None:
        # Written at once: a fragment for each tenant would slow every search.
        arrow = self._arrow
        flat = np.concatenate([vectors for _, vectors in self._waiting])
        sizes = [len(vectors) for _, vectors in self._waiting]
        columns = {
            "tenant": np.repeat(np.array([tenant for tenant, _ in self._waiting], dtype=np.int32), sizes),
            "row": np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
            "vector": arrow.FixedSizeListArray.from_arrays(arrow.array(flat.reshape(-1)), self._dim),
        }
        self._table.add(arrow.table(columns))
        self._waiting = []
        self._table.create_scalar_index("tenant")
        if len(flat) > LANCE_INDEX_FROM:
            self._table.create_index(metric="dot", vector_column_name="vector")

    def search(self, tenant: int, vector: np.ndarray, limit: int) -> list[int]:
        found = (
            self._table.search(vector)
            .distance_type("dot")
            .where(f"tenant = {tenant}", prefilter=True)
            .select(["row", "_distance"])
            .limit(limit)
        )
        return [int(row) for row in found.to_arrow()["row"].to_pylist()]


class QdrantLocal:
    """qdrant-client's in-memory local mode, a collection per tenant (it has no index for a filter)."""

    name = "qdrant-local"
    whole = False

    def __init__(self, dim: int, folder: Path) -> None:
        from qdrant_client import QdrantClient, models

        self._client = QdrantClient(":memory:")
        self._models = models
        self._dim = dim

    def add(self, tenant: int, vectors: np.ndarray) -> None:
        models, name = self._models, f"tenant-{tenant}"
        parameters = models.VectorParams(size=self._dim, distance=models.Distance.DOT)
        self._client.create_collection(name, vectors_config=parameters)
        self._client.upload_collection(name, vectors=vectors, ids=range(len(vectors)))

    def ready(self) -> None:
        pass

    def search(self, tenant: int, vector: np.ndarray, limit: int) -> list[int]:
        found = self._client.query_points(f"tenant-{tenant}", query=vector, limit=limit, with_payload=False)
        return [int(point.id) for point in found.points]


PEERS: dict[str, tuple[str, Callable[[int, Path], Peer]]] = {
    "chroma": ("chromadb", ChromaPerTenant),
    "chroma-filter": ("chromadb", ChromaFiltered),
    "lancedb": ("lancedb", Lance),
    "qdrant-local": ("qdrant_client", QdrantLocal),
}


def _chroma(folder: Path) -> Any:
    import chromadb

    return chromadb.PersistentClient(str(folder), settings=chromadb.Settings(anonymized_telemetry=False))


def _chroma_collection(client: Any, name: str) -> Any:
    return client.create_collection(name, configuration={"hnsw": {"space": "ip"}}, embedding_function=None)
