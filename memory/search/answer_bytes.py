"""Keeps an answer within MEMORY_MAX_ANSWER_BYTES: it holds the seals of the best candidates, and of no others."""

from memory.sealing.answer_bytes import rows_within_budget
from memory.search.matches import Candidate
from memory.tenancy.cursors import Send

SEALS = ("text_cipher", "meta_cipher", "context_cipher")
NONE = dict.fromkeys(SEALS)
FETCH = f"SELECT id, {', '.join(SEALS)} FROM memory_chunks WHERE user_hash = %s AND id = ANY (%b::uuid[])"  # noqa: S608


def within_budget(send: Send, user_hash: str, candidates: list[Candidate]) -> list[Candidate]:
    """The same candidates, those for which an answer has room with their seals, the others without.

    A search leaves the seals of large rows behind, which are rare: those are fetched here, in its door. A row that was
    deleted meanwhile is left out.
    """
    fitting = rows_within_budget(candidate.size for candidate in candidates)
    found = candidates[:fitting]
    left_behind = [candidate.id for candidate in found if candidate.text_cipher is None]
    if left_behind:
        rows = send(FETCH, [user_hash, left_behind]).fetchall()
        fetched = {chunk_id: dict(zip(SEALS, seals, strict=True)) for chunk_id, *seals in rows}
        filled = [candidate._replace(**fetched.get(candidate.id, {})) for candidate in found]
        found = [candidate for candidate in filled if candidate.text_cipher is not None]
    return found + [candidate._replace(**NONE) for candidate in candidates[fitting:]]
