"""Text to terms: what two texts must share for the lexical index to call them alike.

Unicode NFKC and case folding, words by Unicode letters, marks and numbers, Snowball stop words, Snowball stemming.
Scripts written without spaces between words (Chinese, Japanese, Thai and kin; Korean too) become overlapping pairs of
characters. A language that neither list knows is only folded and split. Queries and chunks must pass through the same
analysis, and stored indexes depend on it: a change here, or of `MEMORY_LEXICAL_LANGUAGE`, needs a reindex.
"""

import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import regex
import Stemmer
from django.conf import settings
from stop_words import safe_get_stop_words

MAX_VOCABULARY: Final = 50_000  # words remembered per language and thread, about 8 MB
MAX_TERM_CHARS: Final = 128  # longer words are data (base64, URLs), alike in their first 128 characters or not at all

_ASCII_WORD = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")  # the same words as the next, in half the time
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:'[\p{L}\p{M}\p{N}]+)*")
_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc]+"
)


def analyse(text: str, language: str | None = None) -> list[str]:
    """The terms of a text in their order, repeats included; the language defaults to `MEMORY_LEXICAL_LANGUAGE`.

    Any `str` is taken: NUL, lone surrogates and unassigned characters are separators, never errors.
    """
    language = language or settings.MEMORY_LEXICAL_LANGUAGE
    terms = _vocabularies.get(language)
    return [term for word in _words(_fold(text), language) if (term := terms[word]) is not None]


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", text).replace("\u2019", "'").replace("\u02bc", "'").casefold()
    return unicodedata.normalize("NFKC", folded)  # folding can leave a sequence decomposed


def _words(folded: str, language: str) -> Iterable[str]:
    words = _ASCII_WORD.findall(folded) if folded.isascii() else _spaced_and_paired(folded)
    if language == "english":  # its stemmer strips 's, its stop words hold don't and they've
        return words
    return (part for word in words for part in word.split("'"))  # l'acqua, d'amour: the article is a stop word


def _spaced_and_paired(folded: str) -> Iterator[str]:
    for word in _WORD.findall(folded):
        if not word.isascii() and _UNSPACED.search(word):
            yield from _pairs(word)
        else:
            yield word


def _pairs(word: str) -> Iterator[str]:
    """Overlapping pairs from each run of an unspaced script, a run of one as it is; what stands between is a word."""
    end = 0
    for run in _UNSPACED.finditer(word):
        yield from _between(word[end : run.start()])
        end = run.end()
        characters = run.group()
        yield from (characters[i : i + 2] for i in range(max(1, len(characters) - 1)))
    yield from _between(word[end:])


def _between(word: str) -> tuple[str, ...]:
    word = word.strip("'")
    return (word,) if word else ()


@lru_cache
def _stop_words(language: str) -> frozenset[str]:
    return frozenset(map(_fold, safe_get_stop_words(language)))


class _Vocabulary(dict[str, str | None]):
    """Word to term, None for a stop word, filled as words come. Words repeat: looking up takes a sixth of stemming."""

    def __init__(self, language: str) -> None:
        super().__init__()
        self._stop_words = _stop_words(language)
        self._stemmer = Stemmer.Stemmer(language, 0) if language in Stemmer.algorithms() else None

    def __missing__(self, word: str) -> str | None:
        term = None if word in self._stop_words else self._stem(word[:MAX_TERM_CHARS])
        if len(word) <= MAX_TERM_CHARS:  # what is longer may be megabytes, and does not come again
            if len(self) >= MAX_VOCABULARY:
                self.clear()
            self[word] = term
        return term

    def _stem(self, word: str) -> str:
        return self._stemmer.stemWord(word) if self._stemmer else word


class _Vocabularies(threading.local):
    """One set a thread: a Snowball stemmer must not be used by two at once."""

    def __init__(self) -> None:
        self.by_language: dict[str, _Vocabulary] = {}

    def get(self, language: str) -> _Vocabulary:
        if language not in self.by_language:
            self.by_language[language] = _Vocabulary(language)
        return self.by_language[language]


_vocabularies = _Vocabularies()
