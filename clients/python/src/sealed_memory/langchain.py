"""LangChain: a vector store and a retriever over one user's memory. `pip install 'sealed-memory[langchain]'`.

    store = SealedMemoryVectorStore(Client("http://127.0.0.1:8000", token="smem_…"))
    store.add_documents([Document(page_content="The spare key is under the flower pot.", id="key")])
    store.as_retriever(search_kwargs={"k": 3}).invoke("Where is the spare key?")

The service embeds, so there are no vectors on this side: search by vector and maximal marginal relevance, which need
them, are not offered. A LangChain document is a document of the service with one chunk, and its id is the doc_id.
"""

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict

from sealed_memory import models
from sealed_memory.client import Client
from sealed_memory.errors import NotFound

BATCH = 100


class SealedMemoryVectorStore(VectorStore):
    """One user's memory as a vector store. The asynchronous methods run these in threads."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def embeddings(self) -> Embeddings | None:
        """None: the service embeds."""
        return None

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store texts; an id that exists is replaced. A hundred a request, each request whole or not at all."""
        given = list(texts)
        names = [each or str(uuid.uuid4()) for each in ids or [None] * len(given)]
        described = metadatas or [{} for _ in given]
        documents = [
            models.Document(chunks=[text], doc_id=name, metadata=metadata)
            for text, name, metadata in zip(given, names, described, strict=True)
        ]
        for start in range(0, len(documents), BATCH):
            self.client.index(documents=documents[start : start + BATCH])
        return names

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` best documents; options are the query's of the API, such as `filter` and `source`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """The same, each with its retrieval score; higher is better."""
        matches = self.client.query(query, top_k=k, **kwargs).matches
        return [(_document(match), match.retrieval_score) for match in matches]

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by their ids; ids of nothing are left out."""
        return [_document(chunk) for doc_id in ids for chunk in self._chunks(doc_id)]

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete documents by their ids; ids of nothing delete nothing. Without ids nothing is deleted: see `erase`."""
        for doc_id in ids or ():
            try:
                self.client.delete_document(doc_id)
            except NotFound:
                continue
        return True

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        client: Client | None = None,
        **kwargs: Any,
    ) -> Self:
        """A store that holds these texts as well. `embedding` is not used: the service embeds."""
        store = cls(client or Client())
        store.add_texts(texts, metadatas, ids=list(ids) if ids else None)
        return store

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda score: min(max(score, 0.0), 1.0)

    def _chunks(self, doc_id: str) -> list[models.Memory]:
        try:
            return self.client.document(doc_id)
        except NotFound:
            return []


class SealedMemoryRetriever(BaseRetriever):
    """The `k` best memories for a question, as documents."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    client: Client
    k: int = 4
    options: dict[str, Any] = {}

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        answer = self.client.query(query, top_k=k or self.k, **self.options)
        return [_document(match) for match in answer.matches]


def _document(memory: models.Memory) -> Document:
    return Document(page_content=memory.text, metadata=memory.metadata, id=memory.doc_id)
