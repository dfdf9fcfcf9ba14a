"""Long text into chunks that the embedding model reads whole, cut where a reader would cut."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer

from memory.index.embedding import bundled_directory, model_path

# A text this short in bytes has fewer tokens than any capacity we allow; it needs no splitter.
_SHORT_BYTES = 200


def split_text(text: str) -> list[str]:
    """The chunks of a text, in order, each of at most MEMORY_CHUNK_TOKENS tokens of the embedding model.

    Cuts at the largest boundary that fits: paragraph, line, sentence, word. Nothing but white space at the cuts is
    lost; a text that fits comes back as it is. Never empty for a text that has more than white space.
    """
    if len(text.encode("utf-8")) <= min(_SHORT_BYTES, settings.MEMORY_CHUNK_TOKENS):
        return [text]
    chunks = _splitter(settings.MEMORY_EMBEDDING_MODEL, settings.MEMORY_CHUNK_TOKENS).chunks(text)
    return [text] if len(chunks) <= 1 else list(chunks)


@lru_cache(maxsize=2)
def _splitter(model: str, capacity: int) -> Any:
    # A hub name has no tokenizer file at hand; the bundled one is close enough to size chunks by.
    tokenizer = Path(model_path(model)) / "tokenizer.json"
    if not tokenizer.is_file():
        tokenizer = bundled_directory() / "tokenizer.json"
    counting = Tokenizer.from_file(str(tokenizer))
    # As shipped it cuts every text at 128 tokens (and pads to them): counted so, no text would ever be too long.
    counting.no_truncation()
    counting.no_padding()
    return TextSplitter.from_huggingface_tokenizer(counting, capacity)
