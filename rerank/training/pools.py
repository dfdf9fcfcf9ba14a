"""Questions with the candidates that retrieval found for them: what a reranker trains on, and is measured on."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

POOL = 32  # candidates mined for training; serving reorders the first 24


@dataclass(frozen=True)
class Pools:
    """`candidates`: int32 (questions, POOL), places in `texts`, best first; −1 where there are fewer. The others have
    the same shape: `hybrid` is the score that ordered them, `cosine` and `keywords` (0 to 1) its parts, `relevant` says
    which answer the question, and `documents` (texts,) of which document a text is. `found` (questions,): whether
    retrieval found an answer itself, or it was put in the last place. `kinds`: where each question is from.
    """

    texts: list[str]
    questions: list[str]
    kinds: list[str]
    documents: np.ndarray
    candidates: np.ndarray
    hybrid: np.ndarray
    cosine: np.ndarray
    keywords: np.ndarray
    relevant: np.ndarray
    answers: np.ndarray
    found: np.ndarray

    def __len__(self) -> int:
        return len(self.questions)

    def passages(self, question: int, places: Sequence[int] | np.ndarray) -> list[str]:
        """The texts at some places of a question's pool."""
        return [self.texts[each] for each in self.candidates[question, places]]

    def part(self, chosen: Sequence[int] | np.ndarray) -> "Pools":
        """The same with some of the questions only."""
        rows = np.asarray(chosen, dtype=np.int64)
        cut = {name: getattr(self, name)[rows] for name in _PER_QUESTION}
        return replace(
            self,
            questions=[self.questions[row] for row in rows],
            kinds=[self.kinds[row] for row in rows],
            **cut,
        )

    def save(self, path: Path) -> None:
        """Write everything into one .npz, which takes the place of an older one at once."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _TEXTS}
        texts = {name: np.frombuffer(json.dumps(getattr(self, name)).encode("utf-8"), np.uint8) for name in _TEXTS}
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays, **texts)
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Pools":
        with np.load(path, allow_pickle=False) as stored:
            texts: dict[str, Any] = {name: json.loads(stored[name].tobytes()) for name in _TEXTS}
            return cls(**texts, **{each.name: stored[each.name] for each in fields(cls) if each.name not in _TEXTS})


_TEXTS = ("texts", "questions", "kinds")
_PER_QUESTION = ("candidates", "hybrid", "cosine", "keywords", "relevant", "answers", "found")


def joined(parts: Sequence[Pools]) -> Pools:
    """Several as one, in their order."""
    text_shifts = np.cumsum([0, *(len(part.texts) for part in parts)])
    document_shifts = np.cumsum([0, *(int(part.documents.max(initial=-1)) + 1 for part in parts)])
    return Pools(
        texts=[text for part in parts for text in part.texts],
        questions=[question for part in parts for question in part.questions],
        kinds=[kind for part in parts for kind in part.kinds],
        documents=np.concatenate([part.documents + shift for part, shift in zip(parts, document_shifts, strict=False)]),
        candidates=np.concatenate(
            [
                np.where(part.candidates < 0, -1, part.candidates + shift)
                for part, shift in zip(parts, text_shifts, strict=False)
            ]
        ).astype(np.int32),
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_QUESTION[1:]},
    )


def by_kind(pools: Pools) -> Iterator[tuple[str, Pools]]:
    """The questions of each kind, in the order of the kinds' names."""
    for kind in sorted(set(pools.kinds)):
        yield kind, pools.part([row for row, each in enumerate(pools.kinds) if each == kind])
