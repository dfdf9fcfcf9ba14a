"""Groups of one answer and four hard negatives, drawn from pools, in batches of similar length."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rerank.training.pairs import Batch, TokenisedPools, batch_of

NEGATIVES = 4
GROUPS_A_BATCH = 8
SORTED_TOGETHER = 16  # batches, sorted by length, so that little of a batch is padding


@dataclass(frozen=True, slots=True)
class GroupBatch:
    """`pairs` of GROUPS_A_BATCH groups, the answer first in each; `hybrid`: float32 (groups, 1 + NEGATIVES)."""

    pairs: Batch
    hybrid: np.ndarray


class Groups:
    """An endless stream of batches, the same for a seed, from any step on."""

    def __init__(self, tokenised: TokenisedPools, seed: int, groups_a_batch: int = GROUPS_A_BATCH) -> None:
        pools = tokenised.pools
        wrong = (pools.candidates >= 0) & ~pools.relevant
        self._usable = np.flatnonzero(pools.relevant.any(axis=1) & (wrong.sum(axis=1) >= NEGATIVES))
        if not len(self._usable):
            raise ValueError("No question has both an answer and enough wrong candidates.")
        self._tokenised, self._seed, self._size = tokenised, seed, groups_a_batch

    @property
    def pairs_a_batch(self) -> int:
        return self._size * (1 + NEGATIVES)

    def batches(self, first_step: int = 0) -> Iterator[GroupBatch]:
        """Batches from a step on. A stretch of SORTED_TOGETHER batches depends on the seed and its number alone."""
        step = first_step - first_step % SORTED_TOGETHER
        while True:
            for batch in self._stretch(step // SORTED_TOGETHER):
                if step >= first_step:
                    yield self._batch(batch)
                step += 1

    def _stretch(self, number: int) -> list[list[tuple[int, np.ndarray]]]:
        generator = np.random.default_rng([self._seed, number])
        drawn = [self._group(int(question), generator) for question in self._questions(number)]
        drawn.sort(key=lambda group: self._tokenised.length(*group))
        batches = [drawn[start : start + self._size] for start in range(0, len(drawn), self._size)]
        return [batches[each] for each in generator.permutation(len(batches))]

    def _questions(self, number: int) -> np.ndarray:
        """The questions of a stretch: each comes once before any comes again."""
        count = self._size * SORTED_TOGETHER
        places = np.arange(number * count, (number + 1) * count)
        rounds, places = places // len(self._usable), places % len(self._usable)
        orders = {
            each: np.random.default_rng([self._seed, 1, each]).permutation(self._usable)
            for each in set(rounds.tolist())
        }
        return np.array([orders[int(each)][place] for each, place in zip(rounds, places, strict=True)])

    def _group(self, question: int, generator: np.random.Generator) -> tuple[int, np.ndarray]:
        pools = self._tokenised.pools
        right = np.flatnonzero(pools.relevant[question])
        wrong = np.flatnonzero((pools.candidates[question] >= 0) & ~pools.relevant[question])
        # The best-ranked text of the answering document is the likeliest to hold the answer itself.
        return question, np.array([right[0], *generator.choice(wrong, NEGATIVES, replace=False)])

    def _batch(self, groups: list[tuple[int, np.ndarray]]) -> GroupBatch:
        pairs = [pair for question, places in groups for pair in self._tokenised.pairs(question, places)]
        hybrid = [self._tokenised.pools.hybrid[question, places] for question, places in groups]
        return GroupBatch(batch_of(pairs), np.array(hybrid, dtype=np.float32))
