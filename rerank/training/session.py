"""One training from pools to a folder that can be served: train, choose the fusion on dev, export, report."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from inference.weights import read_weights
from rerank.backends.pair_tokenizer import Limits, PairTokenizer
from rerank.training.groups import Groups
from rerank.training.loop import Budget, Training, load_best
from rerank.training.network import Network, config_of, shape_of, start_weights
from rerank.training.pairs import TokenisedPools
from rerank.training.pools import Pools
from rerank.training.scoring import by_network, scores_of

CURVE_QUESTIONS = 40  # of each kind of dev, asked at every point of the learning curve


@dataclass(frozen=True)
class Plan:
    """What is trained. `body`: folder of the embedding model whose first layers it begins as."""

    body: Path
    minutes: float
    steps: int | None = None
    layers: int = 2
    shared_token_types: bool = True
    max_length: int = 160
    seed: int = 0
    device: str = "cpu"
    threads: int = 0
    minutes_between_evaluations: float = 8.0

    # Of `described`, what a resumed training may have otherwise.
    BUDGET: ClassVar[tuple[str, ...]] = ("minutes", "steps", "minutes_between_evaluations")

    def described(self) -> dict[str, Any]:
        """All of it but where files lie and what it runs on."""
        return {name: value for name, value in asdict(self).items() if name not in ("body", "device", "threads")}

    def config(self) -> dict[str, Any]:
        body = json.loads((self.body / "config.json").read_text(encoding="utf-8"))
        return config_of(body, layers=self.layers, shared_token_types=self.shared_token_types)

    def tokenizer(self) -> PairTokenizer:
        """As serving makes it of the bundle's config.json."""
        limits = Limits(pair=self.max_length)
        return PairTokenizer.from_directory(self.body, limits, marks_shared=self.shared_token_types)

    def network(self) -> Network:
        """As it is before training."""
        body = read_weights(self.body / "model.safetensors")
        start = start_weights(body, layers=self.layers, shared_token_types=self.shared_token_types, seed=self.seed)
        return Network(start, shape_of(self.config()))


def train(
    plan: Plan,
    pools: Pools,
    dev: Pools,
    folder: Path,
    *,
    measure: Callable[[Pools, np.ndarray], dict[str, float]],
    resume: bool,
    log: Callable[[str], None],
) -> Network:
    """Train in `folder` and return the network with the best weights by dev.

    `measure`: figures of pools with scores (questions, SERVED), for the curve; `dev` among them is to be the highest.
    """
    torch.manual_seed(plan.seed)
    if plan.threads:
        torch.set_num_threads(plan.threads)
    tokenizer = plan.tokenizer()
    asked = TokenisedPools(some_of_each_kind(dev, CURVE_QUESTIONS, plan.seed), tokenizer)
    training = Training(
        plan.network(),
        Groups(TokenisedPools(pools, tokenizer), plan.seed),
        Budget(60 * plan.minutes, plan.steps, 60 * plan.minutes_between_evaluations),
        folder,
        evaluate=lambda network: measure(asked.pools, scores_of(asked, by_network(network, plan.device))),
        device=plan.device,
        log=log,
    )
    if resume and training.resume():
        log(f"Resumed at step {training.progress.step:,}.")
    training.run()
    return load_best(plan.network(), folder)


def some_of_each_kind(pools: Pools, count: int, seed: int) -> Pools:
    """At most `count` questions of each kind, drawn by `seed`."""
    generator = np.random.default_rng(seed)
    kinds = np.array(pools.kinds)
    rows = [generator.permutation(np.flatnonzero(kinds == kind))[:count] for kind in sorted(set(pools.kinds))]
    return pools.part(np.concatenate(rows))
