from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from rerank.training.groups import NEGATIVES, SORTED_TOGETHER, Groups
from tests.rerank.training import small


def test_the_answer_stands_first_and_only_there(body: Path) -> None:
    pools = small.colour_pools()
    groups = Groups(small.tokenised(body, pools), seed=0)
    for question, places in (group for batch in groups._stretch(0) for group in batch):
        assert pools.relevant[question, places].tolist() == [True] + [False] * NEGATIVES


@pytest.mark.parametrize("step", [1, SORTED_TOGETHER, SORTED_TOGETHER + 3])
def test_the_stream_goes_on_from_any_step(body: Path, step: int) -> None:
    groups = Groups(small.tokenised(body), seed=3, groups_a_batch=2)
    whole = list(islice(groups.batches(), step + 2))
    rest = list(islice(groups.batches(step), 2))
    assert all(np.array_equal(one.pairs.ids, other.pairs.ids) for one, other in zip(whole[step:], rest, strict=True))


def test_every_question_comes_before_any_comes_again(body: Path) -> None:
    pools = small.colour_pools(SORTED_TOGETHER * 2)
    groups = Groups(small.tokenised(body, pools), seed=0, groups_a_batch=2)
    asked = [question for batch in groups._stretch(0) for question, _ in batch]
    assert sorted(asked) == list(range(len(pools)))


def test_pools_without_an_answer_are_refused(body: Path) -> None:
    pools = small.colour_pools()
    pools.relevant[:] = False
    with pytest.raises(ValueError, match="No question"):
        Groups(small.tokenised(body, pools), seed=0)
