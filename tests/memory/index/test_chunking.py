"""Chunks: small enough for the model, cut at boundaries, nothing lost."""

import re
import time
from functools import cache
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from memory.index import chunking
from memory.index.embedding_runtime import bundled_directory


def split_text(text: str) -> list[str]:
    return list(chunking.split_text(text))


def tokens(text: str) -> int:
    return len(_tokenizer().encode(text, add_special_tokens=False).ids)


@cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(bundled_directory() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


SENTENCES = " ".join(f"Sentence number {number} speaks of cats, dogs and birds." for number in range(200))


def test_a_short_text_comes_back_as_it_is() -> None:
    assert split_text("  hello\nworld ") == ["  hello\nworld "]


def test_a_long_text_is_cut_at_sentences_into_what_the_model_reads() -> None:
    chunks = split_text(SENTENCES)
    assert len(chunks) > 5
    assert all(tokens(chunk) <= 254 for chunk in chunks)
    assert all(chunk.endswith(".") and chunk.startswith("Sentence") for chunk in chunks)
    assert squeezed("".join(chunks)) == squeezed(SENTENCES)


def test_paragraphs_are_kept_together() -> None:
    paragraphs = ["A paragraph about one thing. " * 28, "Another one about something else. " * 28]
    assert [chunk.strip() for chunk in split_text("\n\n".join(paragraphs))] == [part.strip() for part in paragraphs]


def test_the_size_is_a_setting(settings: Any) -> None:
    settings.MEMORY_CHUNK_TOKENS = 32
    assert all(tokens(chunk) <= 32 for chunk in split_text(SENTENCES))


@pytest.mark.parametrize("text", ["x" * 5000, "日本語" * 800, "🙂" * 1000, "a " * 3000, "\n" * 500 + "end"])
def test_texts_without_boundaries_are_cut_all_the_same(text: str) -> None:
    chunks = split_text(text)
    assert all(tokens(chunk) <= 254 for chunk in chunks)
    assert squeezed("".join(chunks)) == squeezed(text)


def test_an_abbreviation_ends_no_sentence(settings: Any) -> None:
    settings.MEMORY_CHUNK_TOKENS = 24
    first = "We crossed two clones of the parasite in this study. "
    assert (
        split_text(first + "The clones of P. falciparum were resistant to the drug at every dose.")[0] == first.strip()
    )


def test_a_long_run_without_tokens_is_cut_by_its_characters() -> None:
    assert max(map(len, split_text("x" * 50_000))) <= chunking.CHARACTERS_PER_TOKEN * 254


UNITS = [
    "a'",
    "_a",
    "日本語",
    "-",
    "x",
    "x\n",
    ". ",
    "x" * 90 + " ",
    "a" + " " * 3000,
    "🙂",
    "a\x85",
    "e\u0301",
    "\u200b. ",
]


@pytest.mark.parametrize("unit", UNITS, ids=ascii)
def test_any_text_is_split_in_linear_time(unit: str) -> None:
    """128 KiB took up to 28 seconds of CPU where every candidate cut was tokenized anew; it takes a tenth of one."""
    text = (unit * (128 * 1024))[: 128 * 1024]
    split_text(text[:1000])  # loads the tokenizer
    before = time.thread_time()
    chunks = split_text(text)
    assert time.thread_time() - before < 2
    assert squeezed("".join(chunks)) == squeezed(text)
    assert max(map(tokens, chunks)) <= 254


def test_chunks_come_one_by_one() -> None:
    before = time.thread_time()
    first = next(chunking.split_text("a'" * (4 * 1024 * 1024)))
    assert time.thread_time() - before < 2
    assert tokens(first) == 254


PIECES = st.sampled_from(
    [*UNITS, "A sentence of prose. ", "\n\n", "\r\n", "。", "word ", "\u2028", "뼀", "\0", "\u0085", "\x1c"]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(PIECES, st.integers(1, 200)), min_size=1, max_size=12)
    | st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 60)), min_size=1, max_size=12
    ),
    st.sampled_from([8, 32, 254]),
)
def test_nothing_but_white_space_is_lost_and_every_chunk_fits(pieces: list[tuple[str, int]], capacity: int) -> None:
    text = "".join(piece * count for piece, count in pieces)[:20_000]
    with override_settings(MEMORY_CHUNK_TOKENS=capacity):
        chunks = split_text(text)
    assert squeezed("".join(chunks)) == squeezed(text)
    assert all(chunk.strip() for chunk in chunks) or not text.strip()
    # One character may be more tokens than any capacity, and is left whole.
    assert all(tokens(chunk) <= capacity or len(chunk) == 1 for chunk in chunks)
