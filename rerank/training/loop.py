"""The training loop: AdamW with warm-up and linear decay, a learning curve on dev, checkpoints that survive a kill."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rerank.training.groups import Groups
from rerank.training.loss import FusionLoss
from rerank.training.network import HEAD, Network
from rerank.training.scoring import tensors

BODY_RATE, HEAD_RATE = 2e-4, 1e-3
WEIGHT_DECAY = 0.01
LONGEST_GRADIENT = 1.0
WARM_UP = 0.05
LAST, BEST, CURVE = "last.pt", "best.pt", "curve.jsonl"


@dataclass(frozen=True, slots=True)
class Budget:
    """Training ends after so many seconds of training, or so many steps, whichever is first."""

    seconds: float
    steps: int | None = None
    seconds_between_evaluations: float = 480.0
    seconds_between_checkpoints: float = 60.0

    def progress(self, seconds: float, steps: int) -> float:
        """From 0 to 1."""
        return min(1.0, max(seconds / self.seconds, steps / self.steps if self.steps else 0.0))


@dataclass
class Progress:
    """How far a training is; all of it is kept in the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    evaluated_at: float = 0.0
    best: float = -1.0
    losses: list[float] = field(default_factory=list)


class Training:
    """One training in one folder. `evaluate` gives the figures of a curve's point; its `dev` chooses the checkpoint."""

    def __init__(
        self,
        network: Network,
        groups: Groups,
        budget: Budget,
        folder: Path,
        *,
        evaluate: Callable[[Network], dict[str, float]],
        device: str = "cpu",
        log: Callable[[str], None] = print,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self.network = network.to(device)
        self.loss = FusionLoss().to(device)
        self.optimiser = torch.optim.AdamW(_parameter_groups(network, self.loss), weight_decay=WEIGHT_DECAY)
        self.progress = Progress()
        self._groups, self._budget, self._folder, self._device = groups, budget, folder, device
        self._evaluate, self._log, self._clock = evaluate, log, clock
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self) -> bool:
        """Go on from the folder's last checkpoint. False where there is none."""
        path = self._folder / LAST
        if not path.is_file():
            return False
        stored = torch.load(path, map_location=self._device, weights_only=True)
        self.network.load_state_dict(stored["network"])
        self.loss.load_state_dict(stored["loss"])
        self.optimiser.load_state_dict(stored["optimiser"])
        self.progress = Progress(**stored["progress"])
        return True

    def run(self) -> None:
        """Train until the budget is spent. The best weights by dev are then in `best.pt`."""
        progress, saved = self.progress, self.progress.seconds
        for batch in self._groups.batches(progress.step):
            if self._budget.progress(progress.seconds, progress.step) >= 1:
                break
            started = self._clock()
            pairs, hybrid = tensors(batch.pairs, self._device), torch.from_numpy(batch.hybrid).to(self._device)
            progress.losses.append(self._step(pairs, hybrid))
            progress.step += 1
            progress.seconds += self._clock() - started
            if progress.seconds - progress.evaluated_at >= self._budget.seconds_between_evaluations:
                self._measure()
            elif progress.seconds - saved < self._budget.seconds_between_checkpoints:
                continue
            self._save(LAST)
            saved = progress.seconds
        self._measure()
        self._save(LAST)

    def _step(self, pairs: tuple[Tensor, Tensor, Tensor], hybrid: Tensor) -> float:
        factor = rate(self._budget.progress(self.progress.seconds, self.progress.step))
        for group in self.optimiser.param_groups:
            group["lr"] = group["highest"] * factor
        loss = self.loss(self.network(*pairs).view(hybrid.shape), hybrid)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LONGEST_GRADIENT)
        self.optimiser.step()
        return float(loss.detach())

    def _measure(self) -> None:
        progress = self.progress
        losses, progress.losses = progress.losses, []
        figures = self._evaluate(self.network)
        point = {
            "step": progress.step,
            "pairs": progress.step * self._groups.pairs_a_batch,
            "seconds": round(progress.seconds, 1),
            "loss": round(sum(losses) / max(1, len(losses)), 4),
            "hybrid_weight": round(float(self.loss.log_weight.detach().exp()), 2),
            **{name: round(value, 4) for name, value in figures.items()},
        }
        with (self._folder / CURVE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(point) + "\n")
        self._log(json.dumps(point))
        progress.evaluated_at = progress.seconds
        if figures["dev"] > progress.best:
            progress.best = figures["dev"]
            self._save(BEST)

    def _save(self, name: str) -> None:
        """Whole or not at all: a kill in the middle leaves the checkpoint before."""
        progress = {each: getattr(self.progress, each) for each in Progress.__dataclass_fields__}
        stored: dict[str, Any] = {"network": self.network.state_dict(), "progress": progress}
        if name == LAST:
            stored |= {"loss": self.loss.state_dict(), "optimiser": self.optimiser.state_dict()}
        unfinished = self._folder / f"{name}.tmp"
        torch.save(stored, unfinished)
        unfinished.replace(self._folder / name)


def rate(progress: float) -> float:
    """Of the highest rate: a linear warm-up, then a linear decay to nothing."""
    return progress / WARM_UP if progress < WARM_UP else (1 - progress) / (1 - WARM_UP)


def load_best(network: Network, folder: Path) -> Network:
    """The network with the best weights of a training's folder."""
    network.load_state_dict(torch.load(folder / BEST, map_location="cpu", weights_only=True)["network"])
    return network


def _parameter_groups(network: Network, loss: FusionLoss) -> list[dict[str, Any]]:
    head = [network.weight(name) for name in network.names if name.startswith(HEAD)]
    body = [network.weight(name) for name in network.names if not name.startswith(HEAD)]
    trained = [each for each in body if each.requires_grad]
    return [
        {"params": trained, "lr": 0.0, "highest": BODY_RATE},
        {"params": [*head, *loss.parameters()], "lr": 0.0, "highest": HEAD_RATE},
    ]
