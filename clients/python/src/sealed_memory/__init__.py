"""Client of Sealed Memory, synchronous and asynchronous.

from sealed_memory import Client

memory = Client("http://127.0.0.1:8000", token="smem_…")
memory.index("The spare key is under the blue flower pot.", doc_id="note-1")
print(memory.query("Where is the spare key?").matches[0].text)
"""

from sealed_memory.client import AsyncClient, Client
from sealed_memory.errors import (
    Conflict,
    FieldError,
    Forbidden,
    InvalidRequest,
    NoAnswer,
    NotFound,
    SealedMemoryError,
    ServerError,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from sealed_memory.models import Answer, Document, ErasureReceipt, IndexedDocument, Match, Memory, Page

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "Conflict",
    "Document",
    "ErasureReceipt",
    "FieldError",
    "Forbidden",
    "IndexedDocument",
    "InvalidRequest",
    "Match",
    "Memory",
    "NoAnswer",
    "NotFound",
    "Page",
    "SealedMemoryError",
    "ServerError",
    "TooLarge",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
]
