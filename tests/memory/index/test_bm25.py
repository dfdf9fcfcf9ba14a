import hashlib
import hmac
import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.index import bm25
from memory.index.bm25 import inverse_document_frequency, lexical_vector, query_dimensions, query_vector
from memory.index.text_analysis import analyse

FROZEN = json.loads((Path(__file__).parents[2] / "vectors" / "lexical.json").read_text())
SUBKEY = bytes(range(32))
WORDS = ["apollo", "launch", "launches", "budget", "the", "and", "Alice's", "meeting", "2024", "東京都", "café", "run"]

texts = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)


def reference_bm25(query: str, documents: list[str]) -> list[float]:
    """BM25 as textbooks write it, over terms in the clear, with the collection's average length fixed at 100."""
    analysed = [analyse(document) for document in documents]
    scores = []
    for terms in analysed:
        score = 0.0
        for term in set(analyse(query)):
            holders = sum(term in other for other in analysed)
            idf = math.log(1 + (len(documents) - holders + 0.5) / (holders + 0.5))
            tf = terms.count(term)
            score += idf * tf * (0.9 + 1) / (tf + 0.9 * (1 - 0.4 + 0.4 * len(terms) / 100))
        scores.append(score)
    return scores


def sealed_bm25(query: str, documents: list[str]) -> list[float]:
    vectors = [lexical_vector(document, SUBKEY) for document in documents]
    frequencies = Counter(dimension for vector in vectors for dimension in vector)
    weights = query_vector(query_dimensions(query, SUBKEY), frequencies, len(documents))
    return [sum(weight * vector.get(dim, 0.0) for dim, weight in weights.items()) for vector in vectors]


@settings(deadline=None)
@given(texts, st.lists(texts, min_size=1, max_size=12))
def test_inner_products_are_the_bm25_of_the_clear_terms(query, documents):
    assert sealed_bm25(query, documents) == pytest.approx(reference_bm25(query, documents), abs=1e-4)


@pytest.mark.parametrize("case", FROZEN["cases"], ids=lambda case: case["text"][:12])
def test_matches_the_frozen_vectors(case):
    expected = {int(dimension): weight for dimension, weight in case["vector"].items()}
    assert lexical_vector(case["text"], bytes.fromhex(case["subkey"])) == pytest.approx(expected, abs=1e-6)


def test_dimensions_are_keyed_hashes():
    term = "apollo"
    expected = int.from_bytes(hmac.new(SUBKEY, term.encode(), hashlib.sha256).digest()[:8], "big") % 10**9
    assert list(lexical_vector("Apollo", SUBKEY)) == [expected] == query_dimensions("apollo", SUBKEY)


def test_tenants_share_no_dimension():
    text = " ".join(f"word{i}" for i in range(300))
    assert not lexical_vector(text, SUBKEY).keys() & lexical_vector(text, SUBKEY[::-1]).keys()


def test_terms_that_meet_in_one_dimension_add_up(monkeypatch):
    alone = list(lexical_vector("apollo launch launch", SUBKEY).values())
    monkeypatch.setattr(bm25, "dimension_of", lambda term, subkey: 7)
    monkeypatch.setattr(bm25._Dimensions, "by_subkey", {})
    assert lexical_vector("apollo launch launch", SUBKEY) == {7: pytest.approx(sum(alone))}
    assert query_dimensions("apollo launch", SUBKEY) == [7]


def test_keeps_the_heaviest_400_terms():
    rare = " ".join(f"rare{i}" for i in range(1000))
    vector = lexical_vector(f"{rare} apollo apollo", SUBKEY)
    assert len(vector) == 400
    (apollo,) = query_dimensions("apollo", SUBKEY)
    assert vector[apollo] == max(vector.values())
    assert query_dimensions("rare0", SUBKEY)[0] in vector
    assert query_dimensions("rare999", SUBKEY)[0] not in vector


def test_a_long_text_weighs_each_term_less():
    (apollo,) = query_dimensions("apollo", SUBKEY)
    assert lexical_vector("apollo", SUBKEY)[apollo] > lexical_vector("apollo " + "filler " * 500, SUBKEY)[apollo]


@pytest.mark.parametrize("text", ["", "🙂🎉", "the and of", "\0\0", "\ud800"])
def test_texts_without_terms_give_empty_vectors(text):
    assert lexical_vector(text, SUBKEY) == {}
    assert query_vector(query_dimensions(text, SUBKEY), {}, 10) == {}


def test_lone_surrogates_do_not_stop_a_hash():
    assert 0 <= bm25.dimension_of("\ud800", SUBKEY) < bm25.DIMENSIONS


def test_a_query_of_ten_thousand_words_is_cut_to_its_most_frequent():
    dimensions = query_dimensions(" ".join(f"word{i}" for i in range(10_000)) + " apollo apollo", SUBKEY)
    assert len(dimensions) == 128
    assert dimensions[0] == query_dimensions("apollo", SUBKEY)[0]


def test_rare_terms_weigh_more_and_none_weighs_less_than_nothing():
    weights = [inverse_document_frequency(frequency, 100) for frequency in (0, 1, 50, 100)]
    assert weights == sorted(weights, reverse=True)
    assert min(weights) > 0
    assert inverse_document_frequency(120, 100) > 0  # a count that lags behind
    assert query_vector([3], {}, 0) == {3: pytest.approx(math.log(2))}


@given(st.text())
def test_takes_any_string(text):
    vector = lexical_vector(text, SUBKEY)
    assert all(0 <= dimension < bm25.DIMENSIONS and weight > 0 for dimension, weight in vector.items())
    assert set(query_dimensions(text, SUBKEY)[:128]) <= set(vector)


def test_the_cache_of_term_hashes_is_bounded():
    for start in range(0, 2 * bm25.REMEMBERED_TERMS, 400):
        lexical_vector(" ".join(f"term{number}" for number in range(start, start + 400)), SUBKEY)
    assert sum(map(len, bm25._Dimensions.by_subkey.values())) <= bm25.REMEMBERED_TERMS + 400
