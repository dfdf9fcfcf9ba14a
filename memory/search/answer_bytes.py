"""Keeps an answer within MEMORY_MAX_ANSWER_BYTES: it holds the seals of the best candidates, and of no others."""

from memory.index.rows import CHUNKS
from memory.sealing.answer_bytes import rows_within_budget
from memory.search.matches import Candidate
from memory.tenancy.cursors import Send

# All that a row's MAC covers: the row may have changed since the search.
_FETCHED = tuple(column for column in CHUNKS.columns if column in Candidate._fields)
FETCH = f"SELECT {', '.join(_FETCHED)} FROM memory_chunks WHERE user_hash = %s AND id = ANY (%b::uuid[])"  # noqa: S608


def within_budget(send: Send, user_hash: str, candidates: list[Candidate]) -> list[Candidate]:
    """The same candidates, those for which an answer has room with their seals, the others without.

    A search leaves the seals of large rows behind, which are rare: those are fetched here, in its door. A row that was
    deleted meanwhile is left out.
    """
    fitting = rows_within_budget([candidate.size for candidate in candidates])
    found, rest = candidates[:fitting], candidates[fitting:]
    left_behind = [candidate.id for candidate in found if candidate.text_cipher is None]
    if left_behind:
        rows = (dict(zip(_FETCHED, row, strict=True)) for row in send(FETCH, [user_hash, left_behind]).fetchall())
        fetched = {row["id"]: row for row in rows}
        filled = (candidate._replace(**fetched.get(candidate.id, {})) for candidate in found)
        found = [candidate for candidate in filled if candidate.text_cipher is not None]
    return found + [each._replace(text_cipher=None, meta_cipher=None, context_cipher=None) for each in rest]
