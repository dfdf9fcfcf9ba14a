"""The embedding model behind a real HTTP server, in both dialects, well and unwell."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from pytest_django import Settings

from memory.checks import check_embedding
from memory.exceptions import EmbeddingModelUnavailable, NoEmbedding
from memory.index import embedding_runtime
from memory.index.embedders import Kind
from memory.index.embedders.remote_embedder import RemoteEmbedder
from memory.index.embedding import embed_passages, embed_query
from tests.factories import DIM, vector_of
from tests.model_server import ModelServerUnderTest, Reply, model_server


def tei(body: Any) -> Reply:
    return Reply([(3 * vector_of(text)).tolist() for text in body["inputs"]])


def openai(body: Any) -> Reply:
    rows = [{"index": index, "embedding": vector_of(text).tolist()} for index, text in enumerate(body["input"])]
    return Reply({"object": "list", "data": rows[::-1], "model": body["model"]})


@contextmanager
def remote(settings: Settings, reply: Callable[[Any], Reply], path: str = "/embed") -> Iterator[ModelServerUnderTest]:
    with model_server(reply) as server:
        settings.MEMORY_EMBEDDING_REMOTE_URL = server.url + path
        settings.MEMORY_EMBEDDING_BACKEND = "remote"
        yield server
        embedding_runtime.reset()


@pytest.mark.parametrize(("reply", "path"), [(tei, "/embed"), (openai, "/v1/embeddings")])
def test_both_dialects_give_the_servers_vectors_in_order(reply: Any, path: str, settings: Settings) -> None:
    texts = [f"text number {number} " * (number % 5 + 1) for number in range(100)]
    with remote(settings, reply, path):
        assert np.allclose(embed_passages(texts), [vector_of(text) for text in texts], atol=1e-6)
        assert np.allclose(embed_query("where?"), vector_of("where?"), atol=1e-6)


def test_what_is_sent(settings: Settings) -> None:
    settings.MEMORY_EMBEDDING_REMOTE_TOKEN = "hush"  # noqa: S105
    settings.MEMORY_EMBEDDING_QUERY_PROMPT = "query: "
    settings.MEMORY_EMBEDDING_BATCH = 10
    with remote(settings, tei) as server:
        embed_query("where?")
        embed_passages(["a text"] * 25)
    assert server.requests[1] == {"inputs": ["query: where?"], "normalize": True, "truncate": True}
    assert sorted(len(body["inputs"]) for body in server.requests[2:]) == [5, 10, 10]
    assert all(headers["Authorization"] == "Bearer hush" for headers in server.headers)
    with remote(settings, openai, "/v1/embeddings") as server:
        embed_query("where?")
    assert server.requests[1] == {
        "model": settings.MEMORY_EMBEDDING_MODEL,
        "input": ["query: where?"],
        "encoding_format": "float",
    }


def rows(*values: Any) -> Reply:
    return Reply(list(values))


BROKEN = {
    "garbage": Reply(b"<html>"),
    "half an answer": Reply(b"[[0.1", promised=5000),
    "nothing": Reply([]),
    "no numbers": rows(["a"] * DIM),
    "NaN": Reply(b"[[" + b",".join([b"NaN"] * DIM) + b"]]"),
    "zeros": rows([0.0] * DIM),
    "another width": rows([1.0] * (DIM - 1)),
    "wider": rows([1.0] * (DIM + 1)),
    "too many": rows([1.0] * DIM, [1.0] * DIM),
    "a ragged table": rows([1.0] * DIM, [1.0]),
    "an object": Reply({"error": "no"}),
    "500": Reply(status=500),
    "400": Reply(status=400),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_server_that_gives_no_embeddings_never_gives_vectors(broken: Reply, settings: Settings) -> None:
    replies = iter([tei({"inputs": ["warm up"]})])
    with remote(settings, lambda body: next(replies, broken)):
        with pytest.raises(EmbeddingModelUnavailable) as question:
            embed_query("where?")
        assert question.value.reason in (NoEmbedding.ERROR, NoEmbedding.TIMEOUT)
        with pytest.raises(EmbeddingModelUnavailable):
            embed_passages(["a text"])


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_one_that_never_gave_one_is_not_served(broken: Reply, settings: Settings) -> None:
    with remote(settings, lambda body: broken):
        with pytest.raises(EmbeddingModelUnavailable) as caught:
            embed_passages(["a text"])
        assert caught.value.reason is NoEmbedding.UNAVAILABLE
        assert embedding_runtime.state() == "unavailable"


@pytest.mark.parametrize("broken", [Reply(hangs=True), Reply(b"[", dribbles=True, promised=10**6)])
def test_a_question_to_a_server_that_hangs_is_given_up_in_time(broken: Reply, settings: Settings) -> None:
    settings.MEMORY_EMBED_TIMEOUT_MS = 300
    replies = iter([tei({"inputs": ["warm up"]})])
    with remote(settings, lambda body: next(replies, broken)):
        with pytest.raises(EmbeddingModelUnavailable) as caught:
            embed_query("where?")
        assert caught.value.reason is NoEmbedding.TIMEOUT


def test_a_server_that_stumbles_is_asked_again(settings: Settings) -> None:
    troubles = iter([Reply(status=503), Reply(status=429, headers={"Retry-After": "0"})])
    with remote(settings, lambda body: next(troubles, None) or tei(body)):
        assert embed_passages(["a text"]).shape == (1, DIM)


def test_a_server_that_keeps_failing_is_left_alone(settings: Settings) -> None:
    replies = iter([tei({"inputs": ["warm up"]})])
    with remote(settings, lambda body: next(replies, Reply(status=400))) as server:
        for _ in range(10):
            with pytest.raises(EmbeddingModelUnavailable):
                embed_query("where?")
        asked = len(server.requests)
        for embed in (lambda: embed_query("where?"), lambda: embed_passages(["a text"])):
            with pytest.raises(EmbeddingModelUnavailable) as caught:
                embed()
            assert caught.value.reason is NoEmbedding.BREAKER_OPEN
        assert len(server.requests) == asked
        assert embedding_runtime.state() == "breaker_open"


def test_longer_vectors_are_cut_where_that_is_asked_for() -> None:
    def reply(body: Any) -> Reply:
        return Reply([[3.0, 4.0, 12.0] for _ in body["inputs"]])

    with model_server(reply) as server:
        cutting = RemoteEmbedder(server.url + "/embed", model="m", dimension=2, truncate=True)
        found = cutting.forward(cutting.encode(["a"], Kind.PASSAGE), 5)
        assert np.allclose(found, [[0.6, 0.8]])
        cutting.close()


def test_the_check_wants_an_address_that_says_how_it_is_spoken_to(settings: Settings) -> None:
    assert check_embedding() == []
    settings.MEMORY_EMBEDDING_BACKEND = "remote"
    for url in ("", "http://embed.internal:8080", "embed.internal/embed"):
        settings.MEMORY_EMBEDDING_REMOTE_URL = url
        assert [error.id for error in check_embedding()] == ["memory.E015"]
    for url in ("http://embed.internal:8080/embed", "https://api.example/v1/embeddings/"):
        settings.MEMORY_EMBEDDING_REMOTE_URL = url
        assert check_embedding() == []
    settings.MEMORY_EMBEDDING_BACKEND = "tensorflow"
    assert [error.id for error in check_embedding()] == ["memory.E015"]
