"""Long text into chunks that the embedding model reads whole, cut where a reader would cut.

The text is tokenized in windows, each token once or twice, and the cuts are chosen on the tokens' offsets: linear in
the length of any text. (A splitter that counts the tokens of one candidate after another takes quadratic time on text
without spaces.)
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import regex
from django.conf import settings
from tokenizers import Tokenizer

from memory.index.embedding_runtime import bundled_directory, model_path

# A text this short in bytes has fewer tokens than any capacity we allow; it needs no tokenizer.
_SHORT_BYTES: Final = 200

# No chunk is longer than one window. Prose has 5 characters a token; only data and white space reach this.
CHARACTERS_PER_TOKEN: Final = 16

# From the most to the least telling boundary, each searched from its end ((?r)). None may repeat white space before
# something that can fail to match: that would take quadratic time on a run of spaces.
_SENTENCE: Final = regex.compile(r"(?r)[.!?…][\"'”’»)\]]{0,3}\s|[。！？｡][」』”’）]{0,3}")
_BOUNDARIES: Final = (
    regex.compile(r"(?r)\n\s*\n"),
    regex.compile(r"(?r)\n"),
    _SENTENCE,
    regex.compile(r"(?r)\s"),
)
_INK: Final = re.compile(r"\S")  # by `re`, whose white space is that of str.strip()


def split_text(text: str, header: str = "") -> Iterator[str]:
    """The chunks of a text, in order, each with `header` of at most MEMORY_CHUNK_TOKENS tokens of the embedding model.

    A header that would take more than half of them takes half: then the end of a chunk is not embedded.
    Cuts at the largest boundary that fits: paragraph, line, sentence, word. Nothing but white space at the cuts is
    lost; a text that fits comes back as it is. At least one chunk. Lazy, and soon at the next chunk: a caller may stop.
    """
    capacity = settings.MEMORY_CHUNK_TOKENS
    if header:
        capacity -= min(len(_encode(header)), capacity // 2)
    if len(text.encode("utf-8")) <= min(_SHORT_BYTES, capacity):
        yield text
        return
    window = _Window(text, 0, capacity)
    start = _next_ink(text, 0)
    if start == len(text) or window.holds_all():
        yield text
        return
    while start < len(text):
        if not window.reaches_past(start):
            window = _Window(text, start, capacity)
        cut = window.cut_after(start)
        yield text[start:cut].strip()
        start = _next_ink(text, cut)


class _Window:
    """A slice of a text, tokenized: where in the text each token begins, and which of them begin a word.

    Between two words a cut leaves the tokens on both sides what they are; inside a word they may become more.
    """

    def __init__(self, text: str, start: int, capacity: int) -> None:
        self._text, self._capacity = text, capacity
        self._end = min(len(text), start + CHARACTERS_PER_TOKEN * capacity)
        encoding = _encode(text[start : self._end])
        self._starts = [start + first for first, _ in encoding.offsets]
        self._ends = [start + last for _, last in encoding.offsets]
        words = pairwise([None, *encoding.word_ids])
        self._begins_word = [word != before for before, word in words]

    def holds_all(self) -> bool:
        """Whether the whole text is one chunk."""
        return self._end == len(self._text) and len(self._starts) <= self._capacity

    def reaches_past(self, start: int) -> bool:
        """Whether the slice tells where a chunk that begins at `start` must end."""
        first = bisect_left(self._starts, start)
        enough = self._end == len(self._text) or len(self._starts) - first > self._capacity
        return enough and self._is_between_words(start)

    def cut_after(self, start: int) -> int:
        """Where the chunk that begins at `start` ends: behind as much as fits, at the best boundary within."""
        first, room = bisect_left(self._starts, start), self._capacity
        while True:
            limit = self._starts[first + room] if first + room < len(self._starts) else self._end
            cut = limit if limit == len(self._text) else self._best_cut(start, max(limit, start + 1))
            if cut <= start + 1 or self._is_between_words(cut) or self._fits(start, cut):
                return cut
            room = room * 3 // 4

    def _best_cut(self, start: int, limit: int) -> int:
        for boundary in _BOUNDARIES:
            for found in boundary.finditer(self._text, start, limit):
                end = int(found.end())
                # A full stop before a small letter ends an abbreviation.
                if boundary is not _SENTENCE or not self._text[end : end + 1].islower():
                    return end
        return next(self._words_back(start, limit), limit)

    def _words_back(self, start: int, limit: int) -> Iterator[int]:
        for token in range(bisect_right(self._starts, limit) - 1, bisect_right(self._starts, start) - 1, -1):
            if self._begins_word[token]:
                yield self._starts[token]

    def _is_between_words(self, position: int) -> bool:
        token = bisect_left(self._starts, position)
        spanned = token > 0 and self._ends[token - 1] > position
        return not spanned and (token == len(self._starts) or self._begins_word[token])

    def _fits(self, start: int, cut: int) -> bool:
        return len(_encode(self._text[start:cut])) <= self._capacity


def _next_ink(text: str, start: int) -> int:
    """Where the next character that is no white space stands; the text's length when there is none."""
    found = _INK.search(text, start)
    return int(found.start()) if found else len(text)


def _encode(text: str) -> Any:
    return _tokenizer(settings.MEMORY_EMBEDDING_MODEL).encode(text, add_special_tokens=False)


@lru_cache(maxsize=2)
def _tokenizer(model: str) -> Tokenizer:
    # A hub name has no tokenizer file at hand; the bundled one is close enough to size chunks by.
    path = Path(model_path(model)) / "tokenizer.json"
    if not path.is_file():
        path = bundled_directory() / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    # As shipped it cuts every text at 128 tokens (and pads to them): counted so, no text would ever be too long.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
