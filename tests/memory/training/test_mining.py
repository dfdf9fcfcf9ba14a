from pathlib import Path

import pytest

from memory.training.mining import mine
from memory.training.views import View
from rerank.training.pools import POOL


def view_of(texts: list[str]) -> View:
    view = View("kind")
    for number, text in enumerate(texts):
        view.add(number, [text])
    return view


def test_the_best_stand_first_with_their_scores() -> None:
    view = view_of(["a red car", "a blue boat", "something else that is long"])
    view.ask("blue boat", 1)
    pools = mine(view, cache=None, verbosity=0)
    assert pools.candidates[0, :4].tolist()[0] == 1
    assert pools.candidates[0, 3:].tolist() == [-1] * (POOL - 3)
    assert pools.hybrid[0, 0] == pytest.approx(pools.cosine[0, 0] + 0.5 * pools.keywords[0, 0])
    assert pools.keywords[0, 0] == 1
    assert pools.relevant[0].tolist() == [True] + [False] * (POOL - 1)
    assert pools.found.tolist() == [True]


def test_an_answer_that_was_not_found_takes_the_last_place() -> None:
    view = view_of([f"boat {number}" for number in range(40)] + ["nothing like it, and much longer than all of them"])
    view.ask("boat", 40)
    pools = mine(view, cache=None, verbosity=0)
    assert pools.candidates[0, -1] == 40
    assert pools.relevant[0].tolist() == [False] * (POOL - 1) + [True]
    assert pools.found.tolist() == [False]


def test_several_documents_may_answer() -> None:
    view = view_of(["a red car", "a blue boat", "a blue boot"])
    view.ask("blue", 1, 2)
    pools = mine(view, cache=None, verbosity=0)
    assert pools.answers.tolist() == [2]
    assert pools.relevant[0].sum() == 2


def test_some_of_the_questions_are_drawn(tmp_path: Path) -> None:
    view = view_of(["a red car", "a blue boat"])
    for number in range(20):
        view.ask(f"question {number}", 0)
    drawn = [mine(view, cache=None, limit=5, seed=seed, verbosity=0).questions for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 5
