"""Keeps an answer within MEMORY_MAX_ANSWER_BYTES: it holds the seals of the best candidates, and of no others."""

from memory.sealing.answer_bytes import rows_within_budget
from memory.search.matches import Candidate
from memory.tenancy.cursors import Send

FETCH = (
    "SELECT id, text_cipher, meta_cipher, context_cipher FROM memory_chunks"
    " WHERE user_hash = %s AND id = ANY (%b::uuid[])"
)


def within_budget(send: Send, user_hash: str, candidates: list[Candidate]) -> list[Candidate]:
    """The same candidates, those for which an answer has room with their seals, the others without.

    A search leaves the seals of large rows behind, which are rare: those are fetched here, in its door. A row that was
    deleted meanwhile is left out.
    """
    fitting = rows_within_budget([candidate.size for candidate in candidates])
    found, rest = candidates[:fitting], candidates[fitting:]
    left_behind = [candidate.id for candidate in found if candidate.text_cipher is None]
    if left_behind:
        fetched = {row[0]: row[1:] for row in send(FETCH, [user_hash, left_behind]).fetchall()}
        filled = (_with(candidate, *fetched.get(candidate.id, candidate.seals)) for candidate in found)
        found = [candidate for candidate in filled if candidate.text_cipher is not None]
    return found + [_with(candidate, None, None, None) for candidate in rest]


def _with(candidate: Candidate, text: bytes | None, meta: bytes | None, context: bytes | None) -> Candidate:
    return candidate._replace(text_cipher=text, meta_cipher=meta, context_cipher=context)
