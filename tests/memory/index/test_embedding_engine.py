"""The embedding model behind its engine: what a question and a text to be stored get when the model is busy or sick."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pytest_django import Settings

from inference.engine.backend import EngineLimits
from inference.engine.jobs import Encoded
from inference.engine.runtime import Runtime, Status
from memory.exceptions import EmbeddingModelUnavailable, NoEmbedding
from memory.index import embedding, embedding_keeper, embedding_runtime
from memory.index.embedders import Kind
from memory.index.embedding import embed_passages, embed_query
from memory.rls import bind_tenant
from tests.factories import DIM, vector_of
from tests.inference.factories import FakeClock, Gate, wait_until


class FakeEmbedder:
    """`vector_of` each text; `misbehave(texts)` may raise, wait, or return something instead."""

    name, device = "fake", "cpu"
    reads = 256
    mixes_requests = True
    keeps_deadlines = False
    row: tuple[int, ...] = (DIM,)

    def __init__(self, misbehave: Callable[[list[str]], object] = lambda texts: None, *, workers: int = 2) -> None:
        self.misbehave = misbehave
        self.workers = workers
        self.limits = EngineLimits(items=4, tokens=64, slice_tokens=4, queue=8, questions=1)
        self.forwards: list[list[str]] = []

    def encode(self, texts: Sequence[str], kind: Kind) -> list[Encoded]:
        return [Encoded(1, text) for text in texts]

    def forward(self, items: Sequence[Encoded], timeout: float) -> np.ndarray:
        texts = [item.payload for item in items]
        self.forwards.append(texts)
        instead = self.misbehave(texts)
        return np.stack([vector_of(text) for text in texts]) if instead is None else np.asarray(instead)

    def close(self) -> None:
        return None


def serve(embedder: FakeEmbedder) -> FakeEmbedder:
    """Make the process's embedding model this one."""
    misbehave, embedder.misbehave = embedder.misbehave, lambda texts: None  # the warm-up goes well
    runtime = Runtime(lambda: embedding_runtime.start_engine(embedder), EmbeddingModelUnavailable, name="fake")
    embedding_runtime.reset(runtime)  # type: ignore[arg-type]
    runtime.load_now()
    embedder.misbehave = misbehave
    embedder.forwards.clear()
    return embedder


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    embedding_runtime.reset()


def reason_of(embed: Callable[[], object]) -> NoEmbedding:
    with pytest.raises(EmbeddingModelUnavailable) as caught:
        embed()
    return caught.value.reason


def test_vectors_come_in_order_of_the_texts_in_slices() -> None:
    embedder = serve(FakeEmbedder())
    texts = [f"{'long ' * (number % 7)}{number}" for number in range(30)]
    assert np.array_equal(embed_passages(texts), [vector_of(text) for text in texts])
    assert max(map(len, embedder.forwards)) == 4


def test_a_question_overtakes_a_document_between_two_slices(settings: Settings) -> None:
    gate = Gate()
    embedder = serve(FakeEmbedder(lambda texts: gate(()) if texts[0] != "where?" else None, workers=1))  # type: ignore[arg-type]
    with ThreadPoolExecutor(2) as pool:
        document = pool.submit(embed_passages, ["a text"] * 12)
        assert gate.entered.wait(10)
        question = pool.submit(embed_query, "where?")
        wait_until(lambda: embedding_runtime.current().load_now().heartbeat()["queued"] == 1)
        gate.opened.set()
        assert question.result(10).shape == (DIM,)
        assert document.result(10).shape == (12, DIM)
    assert [texts[0] for texts in embedder.forwards] == ["a text", "where?", "a text", "a text"]


def test_one_users_documents_take_turns_with_anothers() -> None:
    gate = Gate()
    embedder = serve(FakeEmbedder(lambda texts: gate(()), workers=1))  # type: ignore[arg-type]

    def store(user_id: str, text: str) -> None:
        with bind_tenant(user_id):
            embed_passages([text] * 4)

    engine = embedding_runtime.current().load_now()
    with ThreadPoolExecutor(5) as pool:
        work = [pool.submit(store, "person:1", "first")]
        assert gate.entered.wait(10)
        for number in range(3):
            work.append(pool.submit(store, "person:1", f"alice {number}"))
            wait_until(lambda: engine.heartbeat()["queued"] == len(work) - 1)
        work.append(pool.submit(store, "person:2", "bob"))
        wait_until(lambda: engine.heartbeat()["queued"] == 4)
        gate.opened.set()
        for each in work:
            each.result(10)
    assert [texts[0] for texts in embedder.forwards] == ["first", "alice 0", "bob", "alice 1", "alice 2"]


def test_a_document_is_refused_while_too_much_of_others_waits(settings: Settings) -> None:
    settings.MEMORY_EMBED_QUEUE = 10
    gate = Gate()
    serve(FakeEmbedder(lambda texts: gate(()) if texts[0] != "where?" else None))  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(embed_passages, ["a text"] * 100)  # alone, any number is taken
        assert gate.entered.wait(10)
        assert reason_of(lambda: embed_passages(["another"])) is NoEmbedding.QUEUE_FULL
        assert np.array_equal(embed_query("where?"), vector_of("where?"))  # questions have a queue of their own
        gate.opened.set()
        assert large.result(10).shape == (100, DIM)
    assert embed_passages(["another"]).shape == (1, DIM)
    assert embedding.backlog.items == 0


def test_a_question_whose_model_hangs_is_given_up_in_time_and_the_next_at_once(settings: Settings) -> None:
    settings.MEMORY_EMBED_TIMEOUT_MS = 100
    gate = Gate()
    serve(FakeEmbedder(lambda texts: gate(())))  # type: ignore[arg-type]
    clock = FakeClock()
    engine = embedding_runtime.current().load_now()
    engine._clock = clock
    assert reason_of(lambda: embed_query("where?")) is NoEmbedding.TIMEOUT
    clock.advance(3)
    assert reason_of(lambda: embed_query("where?")) is NoEmbedding.BREAKER_OPEN
    gate.opened.set()


def test_a_process_that_ends_hands_a_long_document_back() -> None:
    gate = Gate()
    serve(FakeEmbedder(lambda texts: gate(())))  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(embed_passages, ["a text"] * 100)
        assert gate.entered.wait(10)
        embedding_runtime.hand_back()
        gate.opened.set()
        assert reason_of(large.result) is NoEmbedding.ERROR
    assert reason_of(lambda: embed_query("where?")) is NoEmbedding.ERROR
    assert embedding.backlog.items == 0


@pytest.mark.parametrize(
    "wrong",
    [np.full((1, DIM), np.nan), np.zeros((1, DIM - 1)), np.zeros((2, DIM)), np.zeros(DIM)],
    ids=["NaN", "narrow", "too many", "no table"],
)
def test_what_is_no_embedding_is_never_returned(wrong: np.ndarray) -> None:
    serve(FakeEmbedder(lambda texts: wrong))
    assert reason_of(lambda: embed_query("where?")) is NoEmbedding.ERROR
    assert reason_of(lambda: embed_passages(["a text"])) is NoEmbedding.ERROR


def test_a_model_thread_that_dies_twice_is_told_and_not_waited_for() -> None:
    serve(FakeEmbedder(workers=1))
    engine = embedding_runtime.current().load_now()
    engine._serve = lambda jobs, part: 1 / 0  # type: ignore[method-assign, return-value]
    for _ in range(2):
        assert reason_of(lambda: embed_query("where?")) is NoEmbedding.ERROR
    wait_until(lambda: embedding_runtime.state() == "dead")
    assert reason_of(lambda: embed_query("where?")) is NoEmbedding.BREAKER_OPEN
    with pytest.raises(EmbeddingModelUnavailable, match="dead"):
        embedding_runtime.assert_usable()


def test_the_wall_clock_may_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(FakeEmbedder())
    for moment in (0.0, 4e9):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        assert embed_query("where?").shape == (DIM,)


def test_a_question_waits_for_a_model_that_loads_only_so_long(settings: Settings) -> None:
    settings.MEMORY_EMBED_TIMEOUT_MS = 50
    loading = threading.Event()

    def load() -> Any:
        assert loading.wait(10)
        return embedding_runtime.start_engine(FakeEmbedder())

    runtime = embedding_runtime.reset(Runtime(load, EmbeddingModelUnavailable, name="fake"))
    assert reason_of(lambda: embed_query("where?")) is NoEmbedding.LOADING
    with pytest.raises(EmbeddingModelUnavailable, match="loading"):
        embedding_runtime.assert_usable()
    loading.set()
    wait_until(lambda: runtime.status is Status.READY)
    settings.MEMORY_EMBED_TIMEOUT_MS = 50


def test_the_keeper_loads_again_and_again_and_closes_a_breaker() -> None:
    missing = [EmbeddingModelUnavailable("not there")]
    clock = FakeClock()

    def load() -> Any:
        if missing:
            raise missing.pop()
        return embedding_runtime.start_engine(FakeEmbedder())

    runtime = embedding_runtime.reset(
        Runtime(load, EmbeddingModelUnavailable, name="fake", retry_after=10, clock=clock)
    )
    embedding_keeper.look()
    wait_until(lambda: embedding_runtime.state() == "unavailable")
    with pytest.raises(EmbeddingModelUnavailable, match="not there"):
        embedding_runtime.assert_usable()
    embedding_keeper.look()  # too soon
    assert embedding_runtime.state() == "unavailable"
    clock.advance(11)
    embedding_keeper.look()
    wait_until(lambda: embedding_runtime.state() == "ok")
    breaker = runtime.load_now().breaker
    breaker._clock = clock
    breaker.trip("for the test")
    with pytest.raises(EmbeddingModelUnavailable, match="breaker_open"):
        embedding_runtime.assert_usable()
    clock.advance(31)
    for good in (1, 2, 3):
        embedding_keeper.look()
        wait_until(lambda: breaker._good_probes == good)  # noqa: B023
    assert embedding_runtime.state() == "ok"


def test_serving_starts_the_keeper_but_not_before_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[bool] = []
    monkeypatch.setattr(embedding_keeper, "begin_serving_in_worker", lambda: started.append(True))
    embedding_keeper.begin_serving()
    monkeypatch.setitem(embedding_keeper.sys.modules, "gunicorn.arbiter", object())  # type: ignore[arg-type]
    embedding_keeper.begin_serving()
    assert started == [True]


def test_chunks_longer_than_the_model_reads_are_told(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    serve(FakeEmbedder())
    assert "MEMORY_CHUNK_TOKENS" not in caplog.text
    settings.MEMORY_CHUNK_TOKENS = 255
    serve(FakeEmbedder())
    assert "MEMORY_CHUNK_TOKENS is more than the embedding model reads: 256" in caplog.text
