from typing import Any

from tokenizers import Tokenizer

from memory.chunking import split_text
from memory.embedding import bundled_directory

SENTENCES = " ".join(f"Sentence number {number} tells of something that happened." for number in range(120))


def tokens(text: str) -> int:
    tokenizer = Tokenizer.from_file(str(bundled_directory() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return len(tokenizer.encode(text, add_special_tokens=False).tokens)


def test_long_text_is_split_into_chunks_that_the_model_reads_whole(settings: Any) -> None:
    chunks = split_text(SENTENCES)
    assert len(chunks) > 1
    assert all(tokens(chunk) <= settings.MEMORY_CHUNK_TOKENS for chunk in chunks)
    # Filled to a fair part: a splitter that counts padding would make crumbs.
    assert min(tokens(chunk) for chunk in chunks[:-1]) > settings.MEMORY_CHUNK_TOKENS / 2
    assert " ".join(chunks).split() == SENTENCES.split()


def test_text_that_fits_comes_back_as_it_is() -> None:
    for text in (" a short one\n", "Two hundred tokens at most. " * 30):
        assert split_text(text) == [text]
