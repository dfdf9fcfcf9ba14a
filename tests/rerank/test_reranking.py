"""The verbs over the engine: the specified behaviour, and every fault that must not take the answer with it."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from inference.engine.breaker import Policy, State
from rerank import (
    maybe_rerank,
    rerank,
    rerank_now,
    rerank_with_reason,
    runtime,
)
from rerank.outcomes import Reranking, SkipReason
from tests.inference.factories import FakeClock, Gate
from tests.rerank.factories import FakeBackend, passages, serve_with


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def assert_plain(reranking: Reranking, count: int, reason: SkipReason) -> None:
    assert reranking == Reranking(tuple(range(count)), None, reason)


class TestReranking:
    def test_best_first_with_scores_and_places(self) -> None:
        serve_with(FakeBackend())
        results = run(rerank("q", ["a =1", "b =3", "c =2"]))
        assert [(result.index, result.text, result.score, result.reranked) for result in results] == [
            (1, "b =3", 3.0, True),
            (2, "c =2", 2.0, True),
            (0, "a =1", 1.0, True),
        ]

    def test_maybe_rerank_gives_the_texts(self) -> None:
        serve_with(FakeBackend())
        assert run(maybe_rerank("q", ["a =1", "b =3"])) == ["b =3", "a =1"]

    def test_the_synchronous_twin_agrees(self) -> None:
        serve_with(FakeBackend())
        texts = passages(24)
        assert rerank_now("q", texts) == run(rerank_with_reason("q", texts))
        assert rerank_now("q", texts).order == tuple(reversed(range(24)))

    def test_all_ties_keep_the_candidates_order(self) -> None:
        serve_with(FakeBackend())
        assert rerank_now("q", ["same"] * 24).order == tuple(range(24))

    def test_fusion_by_reciprocal_rank(self, settings: Settings) -> None:
        settings.RERANK_FUSION = "rrf"
        serve_with(FakeBackend())
        assert rerank_now("q", ["a =0", "b =1", "c =2", "d =9"]).order == (0, 3, 1, 2)

    def test_weighted_fusion_knows_the_retrieval_scores(self, settings: Settings) -> None:
        settings.RERANK_FUSION, settings.RERANK_FUSION_WEIGHT = "weighted", 0.05
        serve_with(FakeBackend())
        texts, retrieved = ["a =0", "b =1", "c =2", "d =9"], [0.9, 0.5, 0.49, 0.3]
        assert rerank_now("q", texts, retrieval_scores=retrieved).order == (0, 2, 1, 3)
        reranking = run(rerank_with_reason("q", texts, retrieval_scores=retrieved))
        assert (reranking.order, reranking.scores) == ((0, 2, 1, 3), (0.0, 1.0, 2.0, 9.0))

    def test_nothing_in_nothing_out(self) -> None:
        backend = FakeBackend()
        serve_with(backend)
        assert run(rerank("q", [])) == []
        assert run(rerank("q", None)) == []  # type: ignore[arg-type]
        assert backend.batches == []

    @pytest.mark.parametrize("count", [1, 24, 33, 100])
    def test_any_number_of_candidates(self, count: int) -> None:
        serve_with(FakeBackend())
        assert rerank_now("q", passages(count), timeout_ms=5000).order == tuple(reversed(range(count)))

    def test_ten_thousand_candidates_end_in_time_one_way_or_the_other(self) -> None:
        serve_with(FakeBackend(lambda pairs: time.sleep(0.005)))
        started = time.perf_counter()
        assert_plain(rerank_now("q", passages(10_000)), 10_000, SkipReason.TIMEOUT)
        assert_plain(rerank_now("q", passages(10_000)), 10_000, SkipReason.TIMEOUT)
        assert time.perf_counter() - started < 2


Misbehaviour = Callable[[Sequence[Any]], object]


def raising(error: Exception) -> Misbehaviour:
    def misbehave(pairs: Sequence[Any]) -> object:
        raise error

    return misbehave


FAULTS: dict[str, tuple[Misbehaviour, SkipReason]] = {
    "an exception": (raising(RuntimeError("boom")), SkipReason.ERROR),
    "out of memory": (raising(MemoryError()), SkipReason.ERROR),
    "NaN": (lambda pairs: np.full(len(pairs), np.nan), SkipReason.NAN_SCORES),
    "one NaN": (lambda pairs: [float("nan"), *range(len(pairs) - 1)], SkipReason.NAN_SCORES),
    "infinity": (lambda pairs: np.full(len(pairs), np.inf), SkipReason.NAN_SCORES),
    "too few scores": (lambda pairs: np.zeros(len(pairs) - 1), SkipReason.ERROR),
    "too many scores": (lambda pairs: np.zeros(len(pairs) + 1), SkipReason.ERROR),
    "scores of another shape": (lambda pairs: np.zeros((len(pairs), 2)), SkipReason.ERROR),
    "scores that are no numbers": (lambda pairs: ["x"] * len(pairs), SkipReason.ERROR),
    "a remote that times out": (raising(TimeoutError()), SkipReason.TIMEOUT),
}


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_fault_of_the_model_leaves_the_order_and_says_why(self, fault: str) -> None:
        misbehave, reason = FAULTS[fault]
        serve_with(FakeBackend(misbehave))
        texts = passages(24)
        assert_plain(rerank_now("q", texts), 24, reason)
        results = run(rerank("q", texts))
        assert [result.text for result in results] == texts == passages(24)
        assert {(result.score, result.reranked) for result in results} == {(None, False)}

    @pytest.mark.parametrize(("milliseconds", "reranked"), [(249, True), (251, False)])
    def test_slow_by_a_hair(self, milliseconds: int, reranked: bool) -> None:
        clock = FakeClock()
        serve_with(FakeBackend(lambda pairs: clock.advance(milliseconds / 1000)), clock=clock)
        reranking = rerank_now("q", passages(24), timeout_ms=250)
        assert reranking.reranked is reranked
        assert reranking.skip_reason == (None if reranked else SkipReason.TIMEOUT)

    def test_a_forward_that_never_returns_costs_the_timeout_and_no_more(self) -> None:
        gate = Gate()
        serve_with(FakeBackend(gate))
        started = time.perf_counter()
        assert_plain(rerank_now("q", passages(24), timeout_ms=50), 24, SkipReason.TIMEOUT)
        assert_plain(run(rerank_with_reason("q", passages(24), timeout_ms=50)), 24, SkipReason.TIMEOUT)
        assert time.perf_counter() - started < 1
        gate.opened.set()

    def test_sustained_slowness_then_recovery(self) -> None:
        clock = FakeClock()
        backend = FakeBackend(lambda pairs: clock.advance(0.3))
        engine = serve_with(backend, clock=clock, policy=Policy(slow_after=0.2, open_for=(10, 10)))
        reasons = [rerank_now("q", passages(24)).skip_reason for _ in range(12)]
        assert reasons == [SkipReason.TIMEOUT] * 10 + [SkipReason.BREAKER_OPEN] * 2
        backend.misbehave = lambda pairs: None
        clock.advance(10)
        seen: list[SkipReason | None] = []
        while engine.breaker.snapshot().state is not State.CLOSED and len(seen) < 1000:
            seen.append(rerank_now("q", passages(24)).skip_reason)
            time.sleep(0.002)
        assert set(seen) == {SkipReason.BREAKER_OPEN}  # the user has the plain order while probes run
        assert rerank_now("q", passages(24)).reranked

    @pytest.mark.parametrize(
        "text",
        ["", " ", "\x00", "a\x00b", "\ud800", "\U0001f600" * 50, "שלום עולם", "x" * 10_000_000, "a " * 5_000_000, None],
        ids=["empty", "blank", "nul", "nul-inside", "surrogate", "emoji", "rtl", "10MB-word", "10MB-words", "none"],
    )
    def test_odd_texts_are_scored_by_the_real_tokenizer(self, text: Any, onnx: None) -> None:
        texts = ["before", text, text, "after"]
        for query in ("a question", text):
            results = run(rerank(query, texts, 5000))
            assert sorted(result.index for result in results) == [0, 1, 2, 3]
            assert all(result.reranked and result.text is texts[result.index] for result in results)
            scores = {result.index: result.score for result in results}
            assert scores[1] == pytest.approx(scores[2])  # duplicates score alike

    @pytest.mark.parametrize("reason", ["missing", "corrupt", "nan"])
    def test_weights_that_will_not_do(self, reason: str, model_dir: Path, tmp_path: Path, settings: Any) -> None:
        settings.RERANK_MODEL = str(broken_model(model_dir, tmp_path, reason))
        served = runtime.reset()
        served._load_quietly()
        assert_plain(rerank_now("q", passages(3)), 3, SkipReason.MODEL_UNAVAILABLE)
        assert "fetch_models" in served.detail or "no numbers" in served.detail

    def test_the_hub_away_and_nothing_cached(self, settings: Settings, monkeypatch: Any, tmp_path: Path) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        settings.RERANK_MODEL = "cross-encoder/ms-marco-TinyBERT-L-2-v2"
        served = runtime.reset()
        served._load_quietly()
        assert_plain(rerank_now("q", passages(3)), 3, SkipReason.MODEL_UNAVAILABLE)
        assert "fetch_models" in served.detail

    def test_while_loading(self) -> None:
        gate = Gate()
        served = runtime.reset(runtime.Runtime(load=lambda: gate(()) or FakeBackend()))
        assert_plain(rerank_now("q", passages(3)), 3, SkipReason.LOADING)
        assert gate.entered.wait(5)
        assert_plain(run(rerank_with_reason("q", passages(3), timeout_ms=20)), 3, SkipReason.LOADING)
        gate.opened.set()
        served.load_now()
        assert rerank_now("q", passages(3)).reranked

    def test_the_client_gone_drops_its_job(self) -> None:
        gate = Gate()
        backend = FakeBackend(gate)
        serve_with(backend)

        async def leave() -> None:
            running = asyncio.create_task(rerank("q", passages(1), 5000))
            await asyncio.to_thread(gate.entered.wait, 5)
            leaving = asyncio.create_task(rerank("q", passages(20), 5000))
            await asyncio.sleep(0.01)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert leaving.cancelled()
            gate.opened.set()
            assert (await running)[0].reranked

        run(leave())
        assert backend.batches == [1]

    def test_a_bug_of_ours_fails_open_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = serve_with(FakeBackend())
        monkeypatch.setattr(engine, "submit", raising(KeyError("a bug")))
        assert_plain(rerank_now("q", passages(3)), 3, SkipReason.ERROR)

    def test_errors_are_logged_without_the_text(self, caplog: pytest.LogCaptureFixture) -> None:
        serve_with(FakeBackend(raising(ValueError("SECRET-PASSAGE"))))
        rerank_now("SECRET-QUERY", ["SECRET-PASSAGE"])
        assert "ValueError" in caplog.text
        assert "SECRET" not in caplog.text

    @given(
        texts=st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=40),
        fault=st.sampled_from(["none", *FAULTS]),
    )
    @hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_fault_gives_a_permutation_and_leaves_the_list_alone(self, texts: list[Any], fault: str) -> None:
        serve_with(FakeBackend(FAULTS[fault][0] if fault != "none" else lambda pairs: None))
        before = list(texts)
        results = run(rerank("q", texts))
        assert sorted(result.index for result in results) == list(range(len(before)))
        assert all(result.text is before[result.index] for result in results)
        assert texts == before


def broken_model(good: Path, target: Path, how: str) -> Path:
    from safetensors.numpy import load_file, save_file

    for path in good.iterdir():
        os.link(path, target / path.name)
    weights = target / "model.safetensors"
    tensors = load_file(weights)
    content = weights.read_bytes()
    weights.unlink()
    if how == "corrupt":
        weights.write_bytes(content[: len(content) // 2])
    if how == "nan":
        tensors["classifier.weight"] = np.full_like(tensors["classifier.weight"], np.nan)
        save_file(tensors, weights)
    return target
