"""Attacks on a dump of one user's rows by somebody who knows some of the texts: plain arrays in, guesses out.

Nothing here has a key. A rotation keeps inner products, so a known text is found by its cosines with other known texts,
and known rows turn all others back (orthogonal Procrustes: Schönemann, "A generalized solution of the orthogonal
Procrustes problem", Psychometrika 31, 1966). A keyed term keeps its weights and its frequency, so it is named by the
known rows that it stands in, and guessed by how frequent it is (Cash, Grubbs, Perry, Ristenpart, "Leakage-Abuse Attacks
Against Searchable Encryption", CCS 2015). Each is the simple form of its kind: what it reaches is a lower bound.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

# Two sides of one cosine differ by float32's rounding and by how the model batched the texts.
TOLERANCE = 1e-4
# Of singular values: what is below spans nothing.
NEGLIGIBLE = 1e-3
SEEDS = 10
FEWEST = 3  # of which each has a cosine with two others
MOST_PARTIAL = 100_000
BLOCK = 1_024
NOWHERE = -1

Weights = Mapping[Any, float]
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Rows:
    """Rows as a dump has them, or texts as an attacker prepares them to be compared with these.

    `sizes`: bytes of the sealed texts, int64 (n,). `vectors`: unit length, float32 (n, d); those of rows are turned.
    `weights`: BM25 weights by term; the terms of rows are keyed dimensions.
    """

    sizes: np.ndarray
    vectors: np.ndarray
    weights: Sequence[Weights]

    def __len__(self) -> int:
        return len(self.sizes)

    def take(self, places: Sequence[int] | np.ndarray) -> "Rows":
        """Some of them, in this order."""
        return Rows(self.sizes[places], self.vectors[places], [self.weights[place] for place in places])


def by_size(rows: Rows, texts: Rows) -> np.ndarray:
    """The row of each text, found by its size alone; NOWHERE unless exactly one row has it. int64 (m,)."""
    return _only(rows.sizes.tolist(), texts.sizes.tolist())


def by_weights(rows: Rows, texts: Rows) -> np.ndarray:
    """The row of each text, found by the weights of its terms, which no key hides. int64 (m,)."""
    return _only(map(_fingerprint, rows.weights), map(_fingerprint, texts.weights))


def by_geometry(rows: Rows, texts: Rows) -> np.ndarray:
    """The row of each text, found by the cosines of the texts with each other alone. int64 (m,)."""
    found = np.full(len(texts), NOWHERE)
    if len(texts) < FEWEST:
        return found
    seeds = _seeds(texts.vectors)
    placed = _place_seeds(rows.vectors, texts.vectors[seeds])
    if placed is None:
        return found
    found = by_distances(rows.vectors, texts.vectors, rows.vectors[placed], texts.vectors[seeds])
    found[seeds] = placed
    return found


def by_distances(rows: np.ndarray, texts: np.ndarray, known_rows: np.ndarray, known_texts: np.ndarray) -> np.ndarray:
    """The row of each text, found by its cosines with known ones; NOWHERE where no row has these. int64 (m,)."""
    ours = (texts @ known_texts.T).astype(np.float64)
    theirs = (rows @ known_rows.T).astype(np.float64)
    squares = (ours**2).sum(1)[:, None] + (theirs**2).sum(1)[None] - 2 * ours @ theirs.T
    nearest = squares.argmin(1)
    apart = np.abs(ours - theirs[nearest]).max(1)
    return np.where(apart < TOLERANCE, nearest, NOWHERE)


def turning_back(known_rows: np.ndarray, known_texts: np.ndarray) -> np.ndarray:
    """The matrix, float32 (d, d), that turns rows back into the space of texts, as far as the known ones span it."""
    left, sizes, right = np.linalg.svd(known_rows.T.astype(np.float64) @ known_texts)
    rank = int((sizes > NEGLIGIBLE * sizes[0]).sum()) if len(known_rows) else 0
    return np.asarray(left[:, :rank] @ right[:rank], dtype=np.float32)


def named(rows: Sequence[Weights], texts: Sequence[Mapping[Name, float]]) -> dict[Hashable, Name]:
    """What is certain of keyed terms: those that alone have their weights in the known rows. `texts` are theirs."""
    terms = _by_signature(texts)
    return {
        dimensions[0]: terms[signature][0]
        for signature, dimensions in _by_signature(rows).items()
        if len(dimensions) == 1 and len(terms.get(signature, ())) == 1
    }


def guessed(
    rows: Sequence[Weights], places: Sequence[int], texts: Sequence[Mapping[Name, float]], like: Counter[Name]
) -> dict[Hashable, Name]:
    """Every keyed term that can be paired off with a word: by its weights in the known rows, then by its frequency.

    `places`: the known rows, whose texts are `texts`. `like`: in how many texts of the same kind each word stands.
    """
    frequencies = Counter(dimension for row in rows for dimension in row)
    terms, dimensions = _by_signature(texts), _by_signature([rows[place] for place in places])
    unseen = frequencies.keys() - {each for group in dimensions.values() for each in group}
    strange = like.keys() - {each for group in terms.values() for each in group}
    pairs = [(group, terms.get(signature, [])) for signature, group in dimensions.items()]
    pairs.append((list(unseen), list(strange)))
    return {
        dimension: term
        for keyed, words in pairs
        for dimension, term in zip(_ranked(keyed, frequencies), _ranked(words, like), strict=False)
    }


def _only(rows: Iterable[Hashable], texts: Iterable[Hashable]) -> np.ndarray:
    places = defaultdict(list)
    for place, value in enumerate(rows):
        places[value].append(place)
    there = [places.get(value, []) for value in texts]
    return np.array([found[0] if len(found) == 1 else NOWHERE for found in there], dtype=np.int64)


def _fingerprint(weights: Weights) -> Hashable:
    return tuple(sorted(map(_rounded, weights.values())))


def _rounded(weight: float) -> float:
    return round(float(weight), 4)  # float32 on one side


def _ranked(names: Iterable[Name], frequencies: Counter[Name]) -> list[Name]:
    return sorted(names, key=lambda name: (-frequencies[name], str(name)))


def _by_signature(rows: Sequence[Mapping[Name, float]]) -> dict[Hashable, list[Name]]:
    """Terms by the rows they stand in and their weights there."""
    signatures: dict[Name, list[tuple[int, float]]] = defaultdict(list)
    for place, row in enumerate(rows):
        for term, weight in row.items():
            signatures[term].append((place, _rounded(weight)))
    groups: dict[Hashable, list[Name]] = defaultdict(list)
    for term, signature in signatures.items():
        groups[tuple(signature)].append(term)
    return groups


def _seeds(texts: np.ndarray) -> list[int]:
    """Some texts to begin with, the two of them first that are most alike: few pairs of rows are."""
    some = texts[: SEEDS * SEEDS]
    alike = np.triu(some @ some.T, 1)
    alike[alike > 1 - TOLERANCE] = 0  # one text, twice
    first, second = (int(each) for each in np.unravel_index(alike.argmax(), alike.shape))
    others = [place for place in range(len(some)) if place not in (first, second)]
    return [first, second, *others][:SEEDS]


def _place_seeds(rows: np.ndarray, seeds: np.ndarray) -> list[int] | None:
    """The rows whose cosines with each other are those of the seeds; None where there are none, or too many."""
    wanted = seeds @ seeds.T
    partial = _pairs(rows, wanted[0, 1])
    for place in range(2, len(seeds)):
        if not 0 < len(partial) <= MOST_PARTIAL:
            return None
        partial = _extended(rows, partial, wanted[place, :place])
    return partial[0].tolist() if len(partial) else None


def _pairs(rows: np.ndarray, cosine: float) -> np.ndarray:
    """The pairs of rows with this cosine, both ways round, int64 (p, 2)."""
    found = [
        np.argwhere(np.abs(rows[first : first + BLOCK] @ rows.T - cosine) < TOLERANCE) + [first, 0]
        for first in range(0, len(rows), BLOCK)
    ]
    return np.concatenate(found)


def _extended(rows: np.ndarray, partial: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Each placing of some seeds with each row that the next one may be, int64 (p, s + 1)."""
    longer = []
    for placed in partial:
        fits = np.flatnonzero((np.abs(rows @ rows[placed].T - wanted) < TOLERANCE).all(1))
        longer += [[*placed, row] for row in fits[:1]] if len(placed) > 2 else [[*placed, row] for row in fits]
    return np.array(longer, dtype=np.int64).reshape(-1, partial.shape[1] + 1)
