"""What is mined from which collection: the material of a training, of dev, and of the held-out conversations."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from memory.training.collections import JudgedCollection, Part, Passage
from memory.training.mining import mine
from memory.training.rewriting import HELD_OUT_SPEAKERS, SPEAKERS
from memory.training.views import View, conversations, documents_view, paragraphs_view, statements_view, windows_view
from rerank.training.pools import Pools, joined

# Mean characters of a collection's documents. Longer ones are no memories, shorter ones no documents but sentences.
LONGEST_MEMORY, SHORTEST_DOCUMENT, LONGEST_SENTENCE = 1000, 500, 250
CONVERSATION = 90_000  # characters in one, about 600 turns


@dataclass(frozen=True)
class Recipe:
    """How many questions of each view, and which share of the documents becomes turns of a conversation."""

    windows: int = 9000
    documents: int = 2000
    statements: int = 1000
    turns: float = 0.5
    evaluated: int = 150
    # Of a collection, drawn: embedding them is most of the cost of mining. Long documents are slower to train on, too.
    most_characters: int = 1_200_000
    most_of_documents: int = 300_000
    seed: int = 0


def mine_training(
    collections: Sequence[JudgedCollection], recipe: Recipe, *, cache: Path | None, verbosity: int = 1
) -> Pools:
    """Pools of the `train` part of all collections."""
    mined = []
    for collection in collections:
        for view, limit in _training_views(collection, recipe):
            mined.append(mine(view, cache=cache, limit=limit, seed=recipe.seed, verbosity=verbosity))
    return joined(mined)


def mine_evaluation(
    collections: Sequence[JudgedCollection], part: Part, recipe: Recipe, *, cache: Path | None, verbosity: int = 1
) -> Pools:
    """Pools of a part that is not trained on: documents, paragraphs, and conversations of two people."""
    speakers = HELD_OUT_SPEAKERS if part is Part.HELD_OUT else SPEAKERS
    mined = []
    for collection in collections:
        for view in _evaluation_views(collection, part, recipe, speakers):
            mined.append(mine(view, cache=cache, limit=recipe.evaluated, seed=recipe.seed, verbosity=verbosity))
    return joined([pools for pools in mined if len(pools)])


def _training_views(collection: JudgedCollection, recipe: Recipe) -> Iterator[tuple[View, int]]:
    name, questions = collection.name, collection.questions[Part.TRAIN]
    if mean_length(collection) < LONGEST_MEMORY:
        passages = _drawn(collection.passages[Part.TRAIN], recipe.most_characters, recipe.seed)
        view = windows_view(f"{name}/windows", passages, questions, turns=recipe.turns, seed=recipe.seed)
        yield view, recipe.windows
    else:
        passages = _drawn(collection.passages[Part.TRAIN], recipe.most_of_documents, recipe.seed)
        yield documents_view(f"{name}/documents", passages, questions), recipe.documents
        yield statements_view(f"{name}/statements", passages, seed=recipe.seed), recipe.statements


def _evaluation_views(
    collection: JudgedCollection, part: Part, recipe: Recipe, speakers: Sequence[str]
) -> Iterator[View]:
    name, questions = collection.name, collection.questions[part]
    passages = _drawn(collection.passages[part], recipe.most_characters // 4, recipe.seed)
    if mean_length(collection) < LONGEST_MEMORY:
        size = max(1, round(CONVERSATION / mean_length(collection)))
        yield from conversations(
            f"{name}/conversations", passages, questions, size=size, speakers=speakers, seed=recipe.seed
        )
    if mean_length(collection) < LONGEST_SENTENCE:
        neighbours = _first(collection.passages[part], recipe.most_characters // 4)
        yield paragraphs_view(f"{name}/paragraphs", neighbours, questions)
    if mean_length(collection) > SHORTEST_DOCUMENT:
        yield documents_view(f"{name}/documents", passages, questions)
    if mean_length(collection) > LONGEST_MEMORY:
        yield statements_view(f"{name}/statements", passages, seed=recipe.seed)


def mean_length(collection: JudgedCollection) -> float:
    """Characters of a document in the mean, over all parts."""
    lengths = [len(passage.text) for part in Part for passage in collection.passages[part]]
    return sum(lengths) / len(lengths)


def _drawn(passages: Sequence[Passage], characters: int, seed: int) -> list[Passage]:
    """Passages of about so many characters together, drawn by `seed`, in the order they came in."""
    total = sum(len(passage.text) for passage in passages)
    if total <= characters:
        return list(passages)
    count = max(1, round(len(passages) * characters / total))
    chosen = sorted(random.Random(seed).sample(range(len(passages)), count))  # noqa: S311
    return [passages[each] for each in chosen]


def _first(passages: Sequence[Passage], characters: int) -> list[Passage]:
    """The passages that begin within the first so many characters."""
    before = accumulate((len(passage.text) for passage in passages), initial=0)
    return [passage for passage, start in zip(passages, before, strict=False) if start < characters]
