"""Scores of whole pools, by anything that scores batches of pairs."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from inference.engine.jobs import Encoded
from rerank.training.network import Network
from rerank.training.pairs import Batch, TokenisedPools, batch_of

SERVED = 24  # candidates that serving reorders
TOKENS_A_BATCH = 4096

Place = tuple[int, int]  # question, candidate
ScoreBatch = Callable[[Batch], np.ndarray]


def scores_of(tokenised: TokenisedPools, score: ScoreBatch, depth: int = SERVED) -> np.ndarray:
    """float32 (questions, depth): the score of every candidate, 0 where a pool has fewer."""
    there = tokenised.pools.candidates[:, :depth] >= 0
    scores = np.zeros(there.shape, dtype=np.float32)
    places = [(int(row), int(column)) for row, column in np.argwhere(there)]
    places.sort(key=lambda place: tokenised.length(place[0], [place[1]]))
    for part in _batches(tokenised, places):
        scores[tuple(zip(*(place for place, _ in part), strict=True))] = score(batch_of([pair for _, pair in part]))
    return scores


def _batches(tokenised: TokenisedPools, places: Sequence[Place]) -> Iterator[list[tuple[Place, Encoded]]]:
    """The pairs at these places, which come by rising length, in parts of at most TOKENS_A_BATCH padded tokens."""
    part: list[tuple[Place, Encoded]] = []
    for row, column in places:
        (pair,) = tokenised.pairs(row, [column])
        if part and (len(part) + 1) * pair.tokens > TOKENS_A_BATCH:
            yield part
            part = []
        part.append(((row, column), pair))
    if part:
        yield part


def by_network(network: Network, device: str = "cpu") -> ScoreBatch:
    def score(batch: Batch) -> np.ndarray:
        with torch.inference_mode():
            scores: np.ndarray = network(*tensors(batch, device)).float().cpu().numpy()
        return scores

    return score


def tensors(batch: Batch, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids, types, lengths = (torch.from_numpy(array).to(device) for array in (batch.ids, batch.types, batch.lengths))
    return ids.long(), types.long(), lengths
