"""Chunks: small enough for the model, cut at boundaries, nothing lost."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from memory.index.chunking import split_text
from memory.index.embedding import bundled_directory


def tokens(text: str) -> int:
    tokenizer = Tokenizer.from_file(str(bundled_directory() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


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


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=2000))
def test_nothing_but_white_space_is_lost(text: str) -> None:
    assert squeezed("".join(split_text(text))) == squeezed(text)
