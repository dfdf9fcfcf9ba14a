"""Many documents from a stream of JSON lines: batched, resumable, and with every bad line named at the end.

Two batches are under way at a time: while one is written, the next is embedded, so the cores never wait for the disk.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from django.db import connections

from memory.documents.document import Document
from memory.documents.exported import ExportedPart, ExportMark
from memory.documents.lines import BadLine, parse_import_line
from memory.indexing import existing_doc_ids, index_documents
from memory.verbs.restoring import restore_parts

BATCHES_AT_ONCE = 2
ID_TAKEN = "stored: another memory of this user has one of these ids"
BROKE_OFF = "the export broke off before this: its last line is missing"

# What is stored of a line, by the number of the line.
Batch = dict[int, Document | ExportedPart]


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
        self.bad += other.bad


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
        for batch, size in _batches(lines, batch_size, report):
            doc_ids = {document.doc_id for document in batch.values()}
            # Of the same doc_id in two batches the earlier is stored first, as within one.
            while len(under_way) == BATCHES_AT_ONCE or any(doc_ids & other.doc_ids for other in under_way):
                finish_one()
            under_way.append(_UnderWay(doc_ids, size, pool.submit(_store, user_id, batch, replace)))
        while under_way:
            finish_one()
    report.bad.sort()
    return report


def _batches(lines: Iterable[bytes], size: int, report: ImportReport) -> Iterator[tuple[Batch, int]]:
    batch: Batch = {}
    doc_ids: set[str] = set()
    read = number = 0
    mark = ExportMark(complete=True)
    for number, line in enumerate(lines, start=1):
        read += len(line)
        if not line.strip():
            continue
        try:
            # Embeddings that were made otherwise than this service makes them are made anew.
            found = parse_import_line(line, with_embeddings=mark.fits)
        except BadLine as reason:
            report.bad.append((number, str(reason)))
            continue
        if isinstance(found, ExportMark):
            mark = found
            continue
        # The same doc_id twice in one batch: the earlier one is stored first, then the rule for existing ones holds.
        if len(batch) == size or found.doc_id in doc_ids:
            yield batch, read
            batch, doc_ids, read = {}, set(), 0
        batch[number] = found
        doc_ids.add(found.doc_id)
    if not mark.complete:
        report.bad.append((number + 1, BROKE_OFF))
    yield batch, read


def _store(user_id: str, batch: Batch, replace: bool) -> ImportReport:
    """Store a batch; in a thread, whose connections go back into the pool."""
    try:
        report = _store_documents(user_id, [each for each in batch.values() if isinstance(each, Document)], replace)
        report.add(
            _store_parts(user_id, {n: part for n, part in batch.items() if isinstance(part, ExportedPart)}, replace)
        )
    finally:
        connections.close_all()
    return report


def _store_documents(user_id: str, documents: list[Document], replace: bool) -> ImportReport:
    report = ImportReport()
    if not replace and documents:
        known = existing_doc_ids(user_id=user_id, doc_ids=[document.doc_id for document in documents])
        report.skipped = len(known)
        documents = [document for document in documents if document.doc_id not in known]
    if documents:
        indexed = index_documents(user_id=user_id, documents=documents)
        report.documents = len(indexed)
        report.chunks = sum(len(document.chunk_ids) for document in indexed)
    return report


def _store_parts(user_id: str, parts: dict[int, ExportedPart], replace: bool) -> ImportReport:
    if not parts:
        return ImportReport()
    restored = restore_parts(user_id=user_id, parts=list(parts.values()), replace=replace)
    return ImportReport(
        documents=restored.documents,
        chunks=restored.chunks,
        skipped=restored.skipped,
        bad=[(number, ID_TAKEN) for number, part in parts.items() if part in restored.conflicting],
    )
