"""(query, passage) → token ids, for the backends that run the model in this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from inference.engine.jobs import Encoded


@dataclass(frozen=True, slots=True)
class Limits:
    """In tokens: a pair with its special tokens, and the query alone."""

    pair: int = 512
    query: int = 64


class PairTokenizer:
    """Assembles pairs itself, so that the query is encoded once a request and only the passage is ever truncated.

    The special tokens and their places are read off the tokenizer's own template, so BERT and RoBERTa styles both work.
    Not thread-safe, like the tokenizer it owns.
    """

    def __init__(self, tokenizer: Tokenizer, limits: Limits) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._limits = limits
        self._template = _read_template(tokenizer.encode("a", "a"))
        self._specials = sum(len(ids) for ids in self._template.specials)

    @classmethod
    def from_directory(cls, directory: Path, limits: Limits) -> "PairTokenizer":
        """Reads `tokenizer.json`; raises FileNotFoundError or ValueError."""
        path = directory / "tokenizer.json"
        try:
            return cls(Tokenizer.from_str(path.read_text(encoding="utf-8")), limits)
        except OSError:
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise ValueError(f"{path.name} cannot be read: {error}") from error

    def encode(self, query: str, passages: Sequence[str]) -> list[Encoded]:
        """One pair a passage, its end cut off where it is long. Payload: (ids, type ids), int32 arrays."""
        query_encoding, *encodings = self._tokenizer.encode_batch_fast([query, *passages], add_special_tokens=False)
        query_ids = query_encoding.ids[: self._limits.query]
        room = self._limits.pair - self._specials - len(query_ids)
        return [self._assemble(query_ids, encoding.ids[:room]) for encoding in encodings]

    def _assemble(self, query_ids: list[int], passage_ids: list[int]) -> Encoded:
        before, between, after = self._template.specials
        ids = np.array([*before, *query_ids, *between, *passage_ids, *after], dtype=np.int32)
        types = np.zeros_like(ids)
        types[len(ids) - len(after) - len(passage_ids) :] = self._template.passage_type
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
