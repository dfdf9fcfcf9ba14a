"""The loss: a listwise cross-entropy of the model's score alone, and of the sum that serves."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

FIRST_WEIGHT = 10.0  # of hybrid beside a logit; two candidates next to each other differ by a few hundredths of hybrid


class FusionLoss(nn.Module):
    """½ CE(score) + ½ CE(a · hybrid + score) over each group, whose first member answers (Cao et al., ListNet, 2007).

    `a` is learned. Its second half spends the model's effort on what hybrid does not know.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.tensor(math.log(FIRST_WEIGHT)))

    def forward(self, scores: Tensor, hybrid: Tensor) -> Tensor:
        """`scores`, `hybrid`: (groups, members)."""
        first = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
        alone = functional.cross_entropy(scores, first)
        together = functional.cross_entropy(self.log_weight.exp() * hybrid + scores, first)
        return 0.5 * alone + 0.5 * together
