"""Does the order get better? With a model trained here always; with the real weights where they are."""

import csv
import json
import math
import os
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from pytest_django import Settings

from rerank import config, rerank_now, runtime
from rerank.outcomes import ModelUnavailable
from rerank.weights.files import locate
from tests.rerank import toy

QUERIES = 100


@pytest.fixture(scope="module")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.train(tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_scores_reach_the_right_candidate(backend: str, toy_model: Path, settings: Settings) -> None:
    settings.RERANK_MODEL, settings.RERANK_BACKEND, settings.RERANK_DEVICE = str(toy_model), backend, "cpu"
    settings.RERANK_GOLDEN = [toy.query("red"), toy.passage("red"), toy.passage("blue")]
    runtime.reset().load_now()
    shuffle = random.Random(0).shuffle  # noqa: S311
    for colour in toy.COLOURS:
        told = list(toy.COLOURS) * 6
        shuffle(told)
        reranking = rerank_now(toy.query(colour), [toy.passage(other) for other in told], timeout_ms=5000)
        assert [told[index] for index in reranking.order[:6]] == [colour] * 6


def test_a_model_that_fails_the_golden_pair_is_not_served(toy_model: Path, settings: Settings) -> None:
    settings.RERANK_MODEL, settings.RERANK_BACKEND = str(toy_model), "onnx"
    settings.RERANK_GOLDEN = [toy.query("red"), toy.passage("blue"), toy.passage("red")]
    with pytest.raises(ModelUnavailable, match="RERANK_GOLDEN"):
        runtime.reset().load_now()


def test_the_real_weights_beat_the_candidates_order_on_scifact() -> None:
    """nDCG@10 over 100 test queries of SciFact in BEIR's format (arXiv:2104.08663), 24 candidates each."""
    try:
        locate(config.model_choice())
    except ModelUnavailable:
        pytest.skip("the weights of RERANK_MODEL are not on this machine: run `manage.py fetch_models` first")
    if not os.environ.get("SCIFACT_DIR"):
        pytest.skip("SCIFACT_DIR names no folder with corpus.jsonl, queries.jsonl and qrels/test.tsv")
    runtime.reset().load_now()
    before, after = [], []
    for query, texts, relevant in scifact_candidates(Path(os.environ["SCIFACT_DIR"])):
        reranking = rerank_now(query, texts, timeout_ms=10_000)
        assert reranking.reranked
        before.append(ndcg_at_10(range(len(texts)), relevant))
        after.append(ndcg_at_10(reranking.order, relevant))
    assert sum(after) > sum(before)


def scifact_candidates(folder: Path) -> list[tuple[str, list[str], set[int]]]:
    """(query, the 24 nearest texts by tf-idf, places of the relevant ones among them)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    documents = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    texts = [f"{document['title']} {document['text']}" for document in documents]
    queries = {row["_id"]: row["text"] for row in map(json.loads, (folder / "queries.jsonl").open(encoding="utf-8"))}
    judged: dict[str, set[str]] = defaultdict(set)
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            judged[row["query-id"]].add(row["corpus-id"])
    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True)
    matrix = vectorizer.fit_transform(texts)
    found = []
    for query_id in sorted(judged, key=int)[:QUERIES]:
        scores = (matrix @ vectorizer.transform([queries[query_id]]).T).toarray()[:, 0]
        best = scores.argsort()[::-1][:24]
        relevant = {place for place, row in enumerate(best) if documents[row]["_id"] in judged[query_id]}
        found.append((queries[query_id], [texts[row] for row in best], relevant))
    return found


def ndcg_at_10(order: Sequence[int], relevant: set[int]) -> float:
    """Binary gains; 0.0 where none of the candidates is relevant."""
    gain = sum(1 / math.log2(place + 2) for place, index in enumerate(list(order)[:10]) if index in relevant)
    ideal = sum(1 / math.log2(place + 2) for place in range(min(10, len(relevant))))
    return gain / ideal if ideal else 0.0
