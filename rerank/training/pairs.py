"""Pools as batches of token ids, each text tokenised once, paired by the tokenizer that serves."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from inference.engine.jobs import Encoded
from rerank.backends.pair_tokenizer import PairTokenizer, pad
from rerank.training.pools import Pools

PAD = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """ids and token types, int32 (pairs, longest), right-padded; lengths int32 (pairs,)."""

    ids: np.ndarray
    types: np.ndarray
    lengths: np.ndarray


class TokenisedPools:
    """Pools with all their texts tokenised."""

    def __init__(self, pools: Pools, tokenizer: PairTokenizer) -> None:
        self.pools = pools
        self._tokenizer = tokenizer

    def pairs(self, question: int, places: Sequence[int] | np.ndarray) -> list[Encoded]:
        """The question with the candidates at some places of its pool."""
        asked = self._questions[question]
        return [self._tokenizer.pair(asked, self._texts[each]) for each in self.pools.candidates[question, places]]

    def length(self, question: int, places: Sequence[int] | np.ndarray) -> int:
        """Tokens of the longest of these pairs before any is cut: what they are sorted by."""
        told = max(len(self._texts[each]) for each in self.pools.candidates[question, places])
        return len(self._questions[question]) + told

    @cached_property
    def _questions(self) -> list[list[int]]:
        return self._tokenizer.tokens(self.pools.questions)

    @cached_property
    def _texts(self) -> list[list[int]]:
        return self._tokenizer.tokens(self.pools.texts)


def batch_of(pairs: Sequence[Encoded]) -> Batch:
    return Batch(*pad(pairs, PAD))
