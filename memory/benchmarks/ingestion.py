"""Measures bulk work: an import beside the embedding model alone, and writers beside a reindex to another model."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path
from time import monotonic, perf_counter

from django.conf import settings
from django.db import connections

from memory.benchmarks.bare_session import BareSession
from memory.benchmarks.command import progress
from memory.benchmarks.population import Memories, store
from memory.benchmarks.report import Report, Row, Target, at_least, at_most
from memory.benchmarks.synthetic import Synthetic
from memory.benchmarks.tenants import benchmark_user, throwaway_tenants
from memory.benchmarks.timing import percentile
from memory.documents.document import Chunk, Document
from memory.documents.lines import parse_line
from memory.importing import import_lines
from memory.index.reindexing import reindex_tenant
from memory.indexing import index_documents
from memory.security import hmac_user

IMPORT_BATCH = 128
SEGMENT = 8 * IMPORT_BATCH
# Padded tokens of a forward: what the service takes, and what a program that nobody waits for would take.
FORWARDS = (256, 4_096)
BUNDLED = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
IDLE_SECONDS = 10.0
IMPORT_NOTE = (
    "import = import_lines() of the file's documents: parsed, split, embedded, sealed, indexed, stored. session = the"
    " same chunks by length through the same ONNX session alone, tokenised, in forwards of so many padded tokens. In"
    f" turns, {SEGMENT} documents at a time; ratio = the best session's seconds / the import's."
)
REINDEX_NOTE = (
    "idle and beside = one writer that stores documents of one chunk one after the other, by turns embedded by the"
    " service (write) and with its embedding (given, which waits for the tenant's lock alone), before and while the"
    " tenant is brought to the same model under another name, which embeds every row anew."
)


# --- Import ----------------------------------------------------------------------------------------------------------
def measure_import(path: Path, *, limit: int | None = None, verbosity: int = 1) -> Report:
    """Import a file of JSON lines, and embed its chunks by the session alone, segment by segment in turns."""
    session, user = BareSession(), benchmark_user("import")
    spent = {"import": 0.0, **{_session_name(tokens): 0.0 for tokens in FORWARDS}}
    documents = chunks = 0
    with throwaway_tenants([user]), path.open("rb") as file:
        warm_up(session, user)
        for lines in progress(_segments(file, limit), "Importing", verbosity=verbosity, unit="segment"):
            texts = [chunk.text for line in lines for chunk in parse_line(line).chunks]
            # Every other segment the other way round, or one of them would always have the warmer machine.
            turns: dict[str, Callable[[], object]] = {
                "import": partial(import_lines, user_id=user, lines=lines, batch_size=IMPORT_BATCH),
                **{_session_name(tokens): partial(session.embed, texts, tokens=tokens) for tokens in FORWARDS},
            }
            for name in turns if documents // SEGMENT % 2 else reversed(turns):
                spent[name] += _seconds(turns[name])
            documents, chunks = documents + len(lines), chunks + len(texts)
    rows = [import_row(name, documents, chunks, seconds) for name, seconds in spent.items()]
    return Report("benchmark_index", rows, import_targets(rows), [IMPORT_NOTE])


def warm_up(session: BareSession, user: str) -> None:
    """Load both models, connect, and fill the caches, uncounted."""
    session.embed(["a few words"], tokens=FORWARDS[0])
    import_lines(user_id=user, lines=[b'{"doc_id": "warm-up", "text": "a few words"}'], batch_size=1)


def import_row(name: str, documents: int, chunks: int, seconds: float) -> Row:
    """One way of embedding, as the table shows it."""
    return {
        "work": name,
        "documents": documents,
        "chunks": chunks,
        "seconds": seconds,
        "chunks_s": chunks / max(seconds, 1e-9),
    }


def import_targets(rows: Sequence[Row]) -> list[Target]:
    """An import takes at most a tenth longer than the best the session can do."""
    imported, *sessions = (row["seconds"] for row in rows)
    return [at_least("import / session alone, chunks per second", min(sessions) / imported, 0.9, "×")]


def _session_name(tokens: int) -> str:
    return f"session, {tokens} tokens"


def _segments(lines: Iterator[bytes], limit: int | None) -> Iterator[list[bytes]]:
    wanted = islice((line for line in lines if line.strip()), limit)
    while segment := list(islice(wanted, SEGMENT)):
        yield segment


# --- Reindex ---------------------------------------------------------------------------------------------------------
@dataclass
class Writer:
    """Stores documents of one chunk, one after the other, and keeps the time of each, in seconds.

    `seconds`: of those that the service embeds; `given`: of those that bring their embedding.
    """

    user_id: str
    words: int
    seconds: list[float] = field(default_factory=list)
    given: list[float] = field(default_factory=list)
    failed: int = 0

    def work(self, going_on: Callable[[], bool]) -> "Writer":
        """Write until `going_on()` is false."""
        source = Synthetic(settings.MEMORY_EMBEDDING_DIM, stream=7)
        try:
            for number in count():
                if not going_on():
                    break
                (text,), (vector,) = source.texts(1, self.words), source.vectors(1)
                for kept, embedding in ((self.seconds, None), (self.given, vector)):
                    document = Document(f"beside-{number}", "benchmark", (Chunk(text, embedding),))
                    kept.append(_seconds(partial(index_documents, user_id=self.user_id, documents=[document])))
        except Exception:  # noqa: BLE001  (counting it is what this is for)
            self.failed += 1
        finally:
            connections.close_all()
        return self


def measure_reindex(rows: int, words: int, *, verbosity: int = 1) -> Report:
    """Bring a tenant to the same model under another name while it is written."""
    user = benchmark_user("reindex")
    source = Synthetic(settings.MEMORY_EMBEDDING_DIM)
    with throwaway_tenants([user]):
        store(user, Memories(list(source.texts(rows, words)), source.vectors(rows)))
        # Uncounted: the first write loads the model.
        index_documents(user_id=user, documents=[Document("warm-up", "benchmark", (Chunk("a few words"),))])
        until = monotonic() + IDLE_SECONDS
        idle = Writer(user, words).work(lambda: monotonic() < until)
        with another_name_of_the_model():
            seconds, beside = _reindex_beside(Writer(user, words), user, rows, verbosity)
    found = [writer_row("idle", rows, None, idle), writer_row("beside a reindex", rows, seconds, beside)]
    return Report("benchmark_index", found, reindex_targets(rows, beside), [REINDEX_NOTE])


@contextmanager
def another_name_of_the_model() -> Iterator[None]:
    """Within the block the settings name the bundled model by its other name. Raises ValueError for another model."""
    before = settings.MEMORY_EMBEDDING_MODEL
    if before not in BUNDLED:
        raise ValueError(f"MEMORY_EMBEDDING_MODEL must be {' or '.join(BUNDLED)} for this.")
    settings.MEMORY_EMBEDDING_MODEL = next(name for name in BUNDLED if name != before)
    try:
        yield
    finally:
        settings.MEMORY_EMBEDDING_MODEL = before


def writer_row(load: str, rows: int, seconds: float | None, writer: Writer) -> Row:
    """A writer's times, as the table shows them."""
    return {
        "load": load,
        "tenant_rows": rows,
        "reindex_s": seconds,
        "rows_s": None if seconds is None else rows / seconds,
        "writes": len(writer.seconds),
        "write_p50_ms": percentile(writer.seconds, 50) * 1000,
        "write_p95_ms": percentile(writer.seconds, 95) * 1000,
        "write_max_ms": max(writer.seconds) * 1000,
        "given_p50_ms": percentile(writer.given, 50) * 1000,
        "given_max_ms": max(writer.given) * 1000,
    }


def reindex_targets(rows: int, beside: Writer) -> list[Target]:
    """No writer waits for more than a second, and none fails."""
    return [
        at_most(f"longest write beside a reindex of {rows:,} rows", max(beside.seconds), 1.0, "s"),
        at_most("the same of writes that bring their embedding", max(beside.given), 1.0, "s"),
        at_most("writes that failed beside a reindex", beside.failed, 0),
    ]


def _reindex_beside(writer: Writer, user: str, rows: int, verbosity: int) -> tuple[float, Writer]:
    done = threading.Event()
    thread = threading.Thread(target=writer.work, args=(lambda: not done.is_set(),))
    with progress((), "Reindexing", verbosity=verbosity, unit="row", total=rows) as bar:
        thread.start()
        try:
            seconds = _seconds(lambda: reindex_tenant(hmac_user(user), progress=bar.update))
        finally:
            done.set()
            thread.join()
    return seconds, writer


def _seconds(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started
