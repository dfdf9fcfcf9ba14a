"""(query, passage) → token ids, for the backends that run the model in this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from inference.engine.jobs import Encoded

SHARED_IN_QUERY, SHARED_IN_PASSAGE = 2, 3


@dataclass(frozen=True, slots=True)
class Limits:
    """In tokens: a pair with its special tokens, and the query alone."""

    pair: int = 512
    query: int = 64


class PairTokenizer:
    """Assembles pairs itself, so that the query is encoded once a request and only the passage is ever truncated.

    The special tokens and their places are read off the tokenizer's own template, so BERT and RoBERTa styles both work.
    `marks_shared`: tokens that stand on both sides have types of their own, 2 in the query and 3 in the passage, as a
    model wants whose config.json says `shared_token_types`. Not thread-safe, like the tokenizer it owns.
    """

    def __init__(self, tokenizer: Tokenizer, limits: Limits, *, marks_shared: bool = False) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._limits = limits
        self._marks_shared = marks_shared
        self._template = _read_template(tokenizer.encode("a", "a"))
        self._specials = sum(len(ids) for ids in self._template.specials)

    @classmethod
    def from_directory(cls, directory: Path, limits: Limits, *, marks_shared: bool = False) -> "PairTokenizer":
        """Reads `tokenizer.json`; raises FileNotFoundError or ValueError."""
        path = directory / "tokenizer.json"
        try:
            return cls(Tokenizer.from_str(path.read_text(encoding="utf-8")), limits, marks_shared=marks_shared)
        except OSError:
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise ValueError(f"{path.name} cannot be read: {error}") from error

    def encode(self, query: str, passages: Sequence[str]) -> list[Encoded]:
        """One pair a passage, its end cut off where it is long. Payload: (ids, type ids), int32 arrays."""
        query_ids, *passages_ids = self.tokens([query, *passages])
        return [self.pair(query_ids, passage_ids) for passage_ids in passages_ids]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, whole and without special tokens."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def pair(self, query_ids: Sequence[int], passage_ids: Sequence[int]) -> Encoded:
        """One pair of what `tokens` gave, each side cut to its limit."""
        query_ids = query_ids[: self._limits.query]
        passage_ids = passage_ids[: self._limits.pair - self._specials - len(query_ids)]
        before, between, after = self._template.specials
        ids = np.array([*before, *query_ids, *between, *passage_ids, *after], dtype=np.int32)
        types = np.zeros_like(ids)
        passage = slice(len(ids) - len(after) - len(passage_ids), len(ids) - len(after))
        types[passage.start :] = self._template.passage_type
        if self._marks_shared:
            query = slice(len(before), len(before) + len(query_ids))
            types[query][np.isin(ids[query], ids[passage])] = SHARED_IN_QUERY
            types[passage][np.isin(ids[passage], ids[query])] = SHARED_IN_PASSAGE
        return Encoded(len(ids), (ids, types))


@dataclass(frozen=True, slots=True)
class _Template:
    specials: tuple[list[int], list[int], list[int]]  # before the query, between, after the passage
    passage_type: int


def _read_template(encoding: Encoding) -> _Template:
    content = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
    query, passage = content[0], content[-1]
    ids = encoding.ids
    return _Template((ids[:query], ids[query + 1 : passage], ids[passage + 1 :]), encoding.type_ids[passage])


def pad(pairs: Sequence[Encoded], pad_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ids and type ids, int32 (pairs, longest), right-padded; lengths int32 (pairs,)."""
    lengths = np.array([pair.tokens for pair in pairs], dtype=np.int32)
    ids = np.full((len(pairs), int(lengths.max())), pad_id, dtype=np.int32)
    types = np.zeros_like(ids)
    for row, pair in enumerate(pairs):
        ids[row, : pair.tokens], types[row, : pair.tokens] = pair.payload
    return ids, types, lengths
