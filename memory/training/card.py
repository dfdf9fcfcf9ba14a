"""The model card of a trained reranker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memory.training import latency
from memory.training.latency import Latency
from memory.training.report import Row, as_markdown, curve_as_markdown
from rerank.ordering import Fusion

_CARD = """# {name}

A cross-encoder that reorders short memories on a CPU: the embeddings and first layers of all-MiniLM-L6-v2 (Apache-2.0),
its word embeddings unchanged, and a head, trained by `manage.py train_reranker`. Its score is added to retrieval's,
hybrid + {weight:g} · z, and never takes its place: alone it orders worse than it does together. {longest} English.

## Data

Of each collection, documents were parted by a hash: `train` to learn from, `dev` to choose the checkpoint and the
fusion, `held_out` for the last table. Of MedQuAD all documents of a disease are in one part, of sentence pairs 150
neighbouring sentences.

{collections}

## Training

{plan}

{curve}

The matrices are stored in 8 bits, which moved dev's nDCG@10 by {shift:+.4f}.

{latency}

## Dev: nDCG@10 over the first 24 candidates

{dev}

## Held out: nDCG@10 over the first 24 candidates

{held_out}

Intervals are those of a paired bootstrap over the questions. Conversations are rewritten passages of `held_out`, each
conversation of two people whose names training does not use: their turns are windows of one to four sentences with a
header of speaker and date, and "the author" in a question is one of them.
"""


@dataclass(frozen=True)
class Card:
    """What a model card says. `collections`: name and licence."""

    name: str
    fusion: Fusion
    collections: Sequence[tuple[str, str]]
    plan: Mapping[str, Any]
    curve: Sequence[Mapping[str, float]]
    shift: float
    dev: Sequence[Row]
    held_out: Sequence[Row]
    latency: Sequence[Latency]

    def as_markdown(self) -> str:
        return _CARD.format(
            name=self.name,
            weight=self.fusion.weight,
            longest=_longest(self.fusion),
            collections="\n".join(f"- {name}: {licence}" for name, licence in self.collections),
            plan="\n".join(f"- {name}: {value}" for name, value in self.plan.items()),
            curve=curve_as_markdown(self.curve),
            shift=self.shift,
            dev=as_markdown(self.dev),
            held_out=as_markdown(self.held_out),
            latency=latency.as_markdown(self.latency),
        )


def _longest(fusion: Fusion) -> str:
    if fusion.most_characters is None:
        return "It is asked about passages of any length."
    return f"It is not asked where the passages have more than {fusion.most_characters} characters in the mean."
