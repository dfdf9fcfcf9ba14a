"""A body of BERT's shape small enough to train within a test, and pools that it can learn to order."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from inference.weights import read_weights
from rerank.backends.pair_tokenizer import Limits, PairTokenizer
from rerank.training.network import Network, config_of, shape_of, start_weights
from rerank.training.pairs import TokenisedPools
from rerank.training.pools import POOL, Pools
from rerank.weights.random_model import TINYBERT, write_random_model

SMALL: dict[str, Any] = TINYBERT | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "num_hidden_layers": 3,
}
COLOURS = ("red", "blue", "green", "black", "white", "yellow", "brown", "pink")
THINGS = ("car", "house", "bird", "boat", "dress", "box", "flower", "book")


def write_body(folder: Path) -> Path:
    """Files of an embedding model: what a reranker begins as."""
    return write_random_model(folder, config=SMALL, seed=1)


def network(body: Path, *, shared: bool = True, layers: int = 2) -> Network:
    config = json.loads((body / "config.json").read_text())
    weights = start_weights(read_weights(body / "model.safetensors"), layers=layers, shared_token_types=shared, seed=0)
    return Network(weights, shape_of(config_of(config, layers=layers, shared_token_types=shared)))


def tokenizer(body: Path, *, shared: bool = True) -> PairTokenizer:
    return PairTokenizer.from_directory(body, Limits(pair=32), marks_shared=shared)


def colour_pools(questions: int = 60, seed: int = 0) -> Pools:
    """Questions for a thing of a colour among 64 texts; retrieval knows the thing and guesses the colour."""
    generator = np.random.default_rng(seed)
    texts = [f"the {colour} {thing} was there" for thing in THINGS for colour in COLOURS]
    asked = generator.integers(len(texts), size=questions)
    candidates, hybrid = [], []
    for answer in asked:
        same = np.arange(8) + 8 * (answer // 8)
        others = generator.permutation(np.setdiff1d(np.arange(64), same))[: POOL - 8]
        candidates.append([*generator.permutation(same), *others])
        hybrid.append(np.linspace(1.0, 0.2, POOL))
    relevant = np.array(candidates) == asked[:, None]
    return Pools(
        texts=texts,
        questions=[f"who saw the {texts[each].split()[1]} {texts[each].split()[2]}" for each in asked],
        kinds=["odd" if row % 2 else "even" for row in range(questions)],
        documents=np.arange(len(texts)),
        candidates=np.array(candidates, dtype=np.int32),
        hybrid=np.array(hybrid, dtype=np.float32),
        cosine=np.array(hybrid, dtype=np.float32),
        keywords=np.zeros((questions, POOL), dtype=np.float32),
        relevant=relevant,
        answers=np.ones(questions, dtype=np.int32),
        found=np.ones(questions, dtype=bool),
    )


def tokenised(body: Path, pools: Pools | None = None, *, shared: bool = True) -> TokenisedPools:
    return TokenisedPools(pools or colour_pools(), tokenizer(body, shared=shared))
