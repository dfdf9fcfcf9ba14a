from pathlib import Path

import numpy as np

from rerank.backends.pair_tokenizer import SHARED_IN_PASSAGE, SHARED_IN_QUERY
from rerank.training.pairs import batch_of
from rerank.training.pools import Pools
from tests.rerank.training import small


def types_of(body: Path, question: str, passage: str, *, shared: bool) -> list[int]:
    (pair,) = small.tokenizer(body, shared=shared).encode(question, [passage])
    types: list[int] = pair.payload[1].tolist()
    return types


def test_tokens_on_both_sides_have_types_of_their_own(body: Path) -> None:
    # [CLS] which car [SEP] the car [SEP]
    assert types_of(body, "which car", "the car", shared=False) == [0, 0, 0, 0, 1, 1, 1]
    assert types_of(body, "which car", "the car", shared=True) == [0, 0, SHARED_IN_QUERY, 0, 1, SHARED_IN_PASSAGE, 1]


def test_what_is_cut_off_is_shared_with_nobody(body: Path) -> None:
    assert SHARED_IN_QUERY not in types_of(body, "car", "there " * 40 + "car", shared=True)


def test_pools_are_paired_as_serving_pairs_them(body: Path) -> None:
    pools = small.colour_pools()
    pools = Pools(**{**vars(pools), "texts": [text * 9 for text in pools.texts]})  # so long that they are cut
    pairs = small.tokenised(body, pools).pairs(3, [0, 5])
    served = small.tokenizer(body).encode(pools.questions[3], pools.passages(3, [0, 5]))
    for ours, theirs in zip(pairs, served, strict=True):
        assert np.array_equal(ours.payload, theirs.payload)


def test_a_shorter_pair_is_padded_on_the_right(body: Path) -> None:
    tokenizer = small.tokenizer(body)
    batch = batch_of([tokenizer.pair([7, 8, 9], [7, 8, 9]), tokenizer.pair([7], [7])])
    assert batch.lengths.tolist() == [9, 5]
    assert batch.ids[1, 5:].tolist() == [0, 0, 0, 0]
