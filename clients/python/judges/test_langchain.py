"""LangChain's own suites, against the service at SEALED_MEMORY_URL as the user of SEALED_MEMORY_TOKEN."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests
from sealed_memory import Client
from sealed_memory.langchain import SealedMemoryRetriever, SealedMemoryVectorStore


@pytest.fixture
def memory() -> Iterator[Client]:
    with Client() as client:
        client.erase()
        yield client
        client.erase()


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, memory: Client) -> VectorStore:
        return SealedMemoryVectorStore(memory)


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def stored(self, memory: Client) -> None:
        self.client = memory
        SealedMemoryVectorStore(memory).add_texts([f"The cat sat on mat {number}." for number in range(5)])

    @property
    def retriever_constructor(self) -> type[SealedMemoryRetriever]:
        return SealedMemoryRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"client": self.client}

    @property
    def retriever_query_example(self) -> str:
        return "Where did the cat sit?"


def test_from_texts_scores_and_relevance(memory: Client) -> None:
    store = SealedMemoryVectorStore.from_texts(["Milo is a cat.", "Rex is a dog."], ids=["milo", "rex"], client=memory)
    (best, score), *_ = store.similarity_search_with_score("Who is a cat?", k=2)
    assert best == Document(page_content="Milo is a cat.", metadata={}, id="milo") and score > 0
    assert all(0 <= score <= 1 for _, score in store.similarity_search_with_relevance_scores("cat"))
    assert store.embeddings is None
    assert [each.id for each in store.as_retriever(search_kwargs={"k": 1}).invoke("dog")] == ["rex"]
