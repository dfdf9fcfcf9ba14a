"""Chroma's own HTTP server as a peer: a collection per user, the questions embedded by the client, with the same model.

It is started from an executable of another environment (`pip install chromadb` brings `chroma`), and asked over its
REST API, so that nothing of it is imported here.
"""

import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any

from memory.benchmarks.population import Memories
from memory.benchmarks.server import Client, ServerNotReady, free_port
from memory.index.embedding import embed_query

START_SECONDS = 30
BATCH = 500


class ChromaClient(Client):
    """Embeds a question, then asks a collection; the time is that of both."""

    prefix = "/api/v2/tenants/default_tenant/databases/default_database/"

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any, float]:
        """As its base; a body with a `query` is a question."""
        started = perf_counter()
        if "query" in body:
            include = ["documents", "metadatas", "distances"]
            vector = embed_query(body["query"]).tolist()
            body = {"query_embeddings": [vector], "n_results": body["top_k"], "include": include}
        status, answer, _ = super().post(path, body)
        # It answers what it has made with 201.
        return 200 if status == 201 else status, answer, (perf_counter() - started) * 1000


@contextmanager
def chroma_server(executable: Path) -> Iterator[str]:
    """A server of Chroma's on a free port with an empty store; yields its address. Raises ServerNotReady."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="sealed-memory-chroma-") as folder:
        command = [str(executable), "run", "--path", folder, "--host", "127.0.0.1", "--port", str(port)]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, cwd=folder, stdout=quiet, stderr=quiet) as process:  # noqa: S603
            try:
                _wait(f"http://127.0.0.1:{port}", process)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def fill_collection(address: str, name: str, memories: Memories) -> str:
    """Store a user's texts and vectors in a collection of its own; returns the path of its queries."""
    with closing(ChromaClient(address, "")) as client:
        _, made, _ = client.post("collections", {"name": name, "configuration": {"hnsw": {"space": "cosine"}}})
        path = f"collections/{made['id']}"
        for first in range(0, len(memories.texts), BATCH):
            rows = range(first, min(first + BATCH, len(memories.texts)))
            batch = {
                "ids": [str(row) for row in rows],
                "embeddings": memories.vectors[rows.start : rows.stop].tolist(),
                "documents": memories.texts[rows.start : rows.stop],
                "metadatas": [{"number": row} for row in rows],
            }
            status, answer, _ = client.post(f"{path}/add", batch)
            if status != 200:
                raise ServerNotReady(f"Chroma refused rows: {status} {answer}")
    return f"{path}/query"


def _wait(address: str, process: "subprocess.Popen[Any]") -> None:
    give_up = monotonic() + START_SECONDS
    while monotonic() < give_up and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/v2/heartbeat", timeout=5):  # noqa: S310
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            sleep(0.1)
    raise ServerNotReady("Chroma's server did not start in time.")
