"""Make any value safe for a tokenizer, at a bounded cost."""

# One word piece stands for four or five characters of English and never for more than a word. Sixteen a token leave
# room for long words and runs of spaces, and keep a text of 10 MB from costing more than one of 10 KB.
CHARACTERS_A_TOKEN = 16


def clean(text: object, max_tokens: int) -> str:
    """`text` cut to what `max_tokens` tokens can hold; lone surrogates replaced; anything but a string is empty."""
    if not isinstance(text, str):
        return ""
    cut = text[: max_tokens * CHARACTERS_A_TOKEN]
    return cut if cut.isascii() else cut.encode("utf-8", "replace").decode("utf-8")


def estimate_tokens(characters: int, max_tokens: int) -> int:
    """A guess at the tokens of a text, before it is tokenised. The engine's cost estimate absorbs its bias."""
    return min(characters // 4 + 1, max_tokens)
