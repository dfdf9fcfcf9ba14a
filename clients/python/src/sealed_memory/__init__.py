"""Client of Sealed Memory, synchronous and asynchronous.

from sealed_memory import Client

memory = Client("http://127.0.0.1:8000", token="smem_…")
memory.index("The spare key is under the blue flower pot.", doc_id="note-1")
print(memory.query("Where is the spare key?").matches[0].text)
"""

from sealed_memory.client import AsyncClient, Client
from sealed_memory.errors import (
    Conflict,
    ExportBrokenOff,
    FieldError,
    Forbidden,
    InvalidRequest,
    NoAnswer,
    NotFound,
    SealedMemoryError,
    ServerError,
    StillRunning,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from sealed_memory.models import (
    Answer,
    ChangedDocument,
    Chunk,
    Document,
    ErasureReceipt,
    Explanation,
    Found,
    IndexedDocument,
    Match,
    Memory,
    Operation,
    Page,
    Progress,
    Reranker,
    Surroundings,
)
from sealed_memory.retries import Retries

__all__ = [
    "Answer",
    "AsyncClient",
    "ChangedDocument",
    "Chunk",
    "Client",
    "Conflict",
    "Document",
    "ErasureReceipt",
    "Explanation",
    "ExportBrokenOff",
    "FieldError",
    "Forbidden",
    "Found",
    "IndexedDocument",
    "InvalidRequest",
    "Match",
    "Memory",
    "NoAnswer",
    "NotFound",
    "Operation",
    "Page",
    "Progress",
    "Reranker",
    "Retries",
    "SealedMemoryError",
    "ServerError",
    "StillRunning",
    "Surroundings",
    "TooLarge",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
]
