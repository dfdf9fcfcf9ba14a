import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rerank.training.groups import Groups
from rerank.training.loop import BEST, CURVE, LAST, Budget, Training, load_best, rate
from rerank.training.network import Network
from rerank.training.scoring import by_network, scores_of
from tests.rerank.training import small


class Killed(BaseException):
    """As a signal ends a process: nothing catches it."""


def training(
    body: Path,
    folder: Path,
    budget: Budget,
    *,
    evaluate: Callable[[Network], dict[str, float]] = lambda network: {"dev": 0.5},
) -> Training:
    groups = Groups(small.tokenised(body), seed=0, groups_a_batch=8)
    return Training(small.network(body), groups, budget, folder, evaluate=evaluate, log=lambda line: None)


def losses(run: Training) -> list[float]:
    """Every step's loss, noted as it runs."""
    noted: list[float] = []
    step = run._step
    run._step = lambda *batch: noted.append(step(*batch)) or noted[-1]  # type: ignore[method-assign,func-returns-value]
    run.run()
    return noted


def test_it_learns_what_retrieval_does_not_know(body: Path, tmp_path: Path) -> None:
    noted = losses(training(body, tmp_path, Budget(1e9, steps=120)))
    assert sum(noted[-10:]) < 0.5 * sum(noted[:10])
    tokenised = small.tokenised(body, small.colour_pools(seed=7))
    scores = scores_of(tokenised, by_network(load_best(small.network(body), tmp_path)), depth=8)
    assert tokenised.pools.relevant[range(len(scores)), scores.argmax(axis=1)].mean() > 0.5


def test_a_killed_training_goes_on_as_if_it_had_not_been(body: Path, tmp_path: Path) -> None:
    budget = Budget(1e9, steps=12, seconds_between_checkpoints=0)
    undisturbed = training(body, tmp_path / "whole", budget)
    whole = losses(undisturbed)
    first = training(body, tmp_path / "killed", budget)
    step = first._step

    def killed_at_five(*batch: object) -> float:
        if first.progress.step == 5:
            raise Killed
        return step(*batch)  # type: ignore[arg-type]

    first._step = killed_at_five  # type: ignore[method-assign]
    with pytest.raises(Killed):
        first.run()
    second = training(body, tmp_path / "killed", budget)
    assert second.resume()
    assert second.progress.step == 5
    assert losses(second) == pytest.approx(whole[5:], rel=1e-4)
    for name in ("classifier.weight", "bert.embeddings.LayerNorm.weight"):
        assert torch.allclose(second.network.weight(name), undisturbed.network.weight(name), rtol=0, atol=1e-6)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    body: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(body, tmp_path, Budget(1e9, steps=2))
    run.run()
    before = (tmp_path / LAST).read_bytes()

    def half(stored: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise Killed

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Killed):
        run._save(LAST)
    assert (tmp_path / LAST).read_bytes() == before


def test_there_is_nothing_to_resume_in_an_empty_folder(body: Path, tmp_path: Path) -> None:
    assert not training(body, tmp_path, Budget(1, steps=1)).resume()


def test_the_best_by_dev_is_kept_and_the_curve_is_logged(body: Path, tmp_path: Path) -> None:
    clock = iter(range(1000))
    values = iter([0.2, 0.9, 0.1, 0.1, 0.1])
    seen: dict[float, Network] = {}

    def evaluate(network: Network) -> dict[str, float]:
        value = next(values)
        seen[value] = small.network(body)
        seen[value].load_state_dict(network.state_dict())
        return {"dev": value}

    groups = Groups(small.tokenised(body), seed=0, groups_a_batch=8)
    budget = Budget(1e9, steps=4, seconds_between_evaluations=1)
    Training(
        small.network(body),
        groups,
        budget,
        tmp_path,
        evaluate=evaluate,
        log=lambda line: None,
        clock=lambda: next(clock),
    ).run()
    points = [json.loads(line) for line in (tmp_path / CURVE).read_text().splitlines()]
    assert [point["dev"] for point in points][:3] == [0.2, 0.9, 0.1]
    assert [point["pairs"] for point in points][:2] == [40, 80]
    best = load_best(small.network(body), tmp_path)
    assert torch.equal(best.weight("classifier.weight"), seen[0.9].weight("classifier.weight"))
    assert (tmp_path / BEST).is_file()


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    assert [rate(progress) for progress in (0, 0.025, 0.05, 0.525, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_a_budget_is_spent_by_time_or_by_steps() -> None:
    assert Budget(100).progress(50, 10**6) == 0.5
    assert Budget(100, steps=10).progress(50, 9) == 0.9
    assert Budget(100, steps=10).progress(500, 1) == 1
