from pathlib import Path

import numpy as np

from rerank.training.pools import Pools, by_kind, joined
from tests.rerank.training import small


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    pools = small.colour_pools()
    pools.save(tmp_path / "deep" / "pools.npz")
    loaded = Pools.load(tmp_path / "deep" / "pools.npz")
    assert loaded.texts == pools.texts
    assert loaded.questions == pools.questions
    assert np.array_equal(loaded.candidates, pools.candidates)
    assert np.array_equal(loaded.relevant, pools.relevant)


def test_joined_pools_keep_their_candidates_and_documents() -> None:
    one, other = small.colour_pools(5, seed=1), small.colour_pools(6, seed=2)
    other.candidates[0, 3] = -1
    both = joined([one, other])
    assert len(both) == 11
    assert both.passages(6, [0, 1]) == other.passages(1, [0, 1])
    assert both.candidates[5, 3] == -1
    assert not set(both.documents[: len(one.texts)]) & set(both.documents[len(one.texts) :])


def test_each_kind_has_its_own_questions() -> None:
    pools = small.colour_pools(7)
    parts = dict(by_kind(pools))
    assert {kind: len(part) for kind, part in parts.items()} == {"even": 4, "odd": 3}
    assert parts["odd"].questions == pools.questions[1::2]
