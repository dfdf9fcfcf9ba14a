"""Many documents from a stream of JSON lines: batched, resumable, and with every bad line named at the end.

Two batches are under way at a time: while one is written, the next is embedded, so the cores never wait for the disk.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from django.db import connections

from memory.documents.document import Document
from memory.documents.lines import BadLine, parse_line
from memory.indexing import existing_doc_ids, index_documents

BATCHES_AT_ONCE = 2


@dataclass
class ImportReport:
    """What became of the lines. `bad` holds (line number from 1, reason); a reason repeats nothing of the line."""

    documents: int = 0
    chunks: int = 0
    skipped: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: "ImportReport") -> None:
        """Take a batch's figures in."""
        self.documents += other.documents
        self.chunks += other.chunks
        self.skipped += other.skipped


@dataclass(frozen=True)
class _UnderWay:
    """A batch that is being stored, its doc_ids, and the bytes of its lines."""

    doc_ids: set[str]
    size: int
    stored: Future[ImportReport]


def import_lines(
    *,
    user_id: str,
    lines: Iterable[bytes],
    batch_size: int,
    replace: bool = False,
    progress: Callable[[ImportReport, int], None] = lambda report, size: None,
) -> ImportReport:
    """Store every good line for one user, `batch_size` documents a transaction.

    A doc_id that the user already has is skipped, so a run that was stopped goes on where it stopped; with `replace` it
    is stored anew. `progress` is told the report so far and the bytes of each batch stored.
    """
    report = ImportReport()
    under_way: deque[_UnderWay] = deque()

    def finish_one() -> None:
        batch = under_way.popleft()
        report.add(batch.stored.result())
        progress(report, batch.size)

    with ThreadPoolExecutor(BATCHES_AT_ONCE, thread_name_prefix="import") as pool:
        for documents, size in _batches(lines, batch_size, report):
            doc_ids = {document.doc_id for document in documents}
            # Of the same doc_id in two batches the earlier is stored first, as within one.
            while len(under_way) == BATCHES_AT_ONCE or any(doc_ids & batch.doc_ids for batch in under_way):
                finish_one()
            under_way.append(_UnderWay(doc_ids, size, pool.submit(_store, user_id, documents, replace)))
        while under_way:
            finish_one()
    return report


def _batches(lines: Iterable[bytes], size: int, report: ImportReport) -> Iterator[tuple[list[Document], int]]:
    batch: dict[str, Document] = {}
    read = 0
    for number, line in enumerate(lines, start=1):
        read += len(line)
        if not line.strip():
            continue
        try:
            document = parse_line(line)
        except BadLine as reason:
            report.bad.append((number, str(reason)))
            continue
        # The same doc_id twice in one batch: the earlier one is stored first, then the rule for existing ones holds.
        if len(batch) == size or document.doc_id in batch:
            yield list(batch.values()), read
            batch, read = {}, 0
        batch[document.doc_id] = document
    yield list(batch.values()), read


def _store(user_id: str, batch: list[Document], replace: bool) -> ImportReport:
    """Store a batch; in a thread, whose connections go back into the pool."""
    report = ImportReport()
    try:
        if not replace and batch:
            known = existing_doc_ids(user_id=user_id, doc_ids=[document.doc_id for document in batch])
            report.skipped = len(known)
            batch = [document for document in batch if document.doc_id not in known]
        if batch:
            indexed = index_documents(user_id=user_id, documents=batch)
            report.documents = len(indexed)
            report.chunks = sum(len(document.chunk_ids) for document in indexed)
    finally:
        connections.close_all()
    return report
