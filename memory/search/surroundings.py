"""The chunks around a match, in its document: read when the answer is known, and opened within what is left of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from django.conf import settings

from memory.exceptions import IntegrityFailure
from memory.index.rows import CHUNKS
from memory.index.stored_rows import StoredRow, open_row
from memory.rls import tenant_transaction
from memory.search.matches import Match, Surroundings
from memory.tenancy.cursors import sending

# Along the keys: a few rows of each document, whatever the statistics say.
PINS = {"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}

# In the order of StoredRow, without embedding and version. Seals for which the answer has no room stay behind.
_COLUMNS = ", ".join(
    f"CASE WHEN so_far <= %(room)s THEN {column} END" if kind == "bytea" and column != "emb_cipher" else column
    for column, kind in CHUNKS.columns.items()
).replace("emb_cipher", "NULL::bytea")
_SIDE = """
        (SELECT {columns}, row_number() OVER (ORDER BY chunk_index {order}) AS step,
                octet_length(text_cipher) + octet_length(meta_cipher)
                    + coalesce(octet_length(context_cipher), 0) AS size
         FROM memory_chunks
         WHERE user_hash = %(user_hash)s AND doc_id = here.doc AND chunk_index {beside} here.place
             AND (expires_at IS NULL OR expires_at > now())
         ORDER BY chunk_index {order} LIMIT %(most)s)"""
_BEFORE, _AFTER = (
    _SIDE.format(columns=", ".join(CHUNKS.columns), order=order, beside=beside)
    for order, beside in (("DESC", "<"), ("ASC", ">"))
)
AROUND = f"""
SELECT asked, chunk_index < place AS is_before, so_far <= %(room)s AS fits, {_COLUMNS}, 0 FROM (
    SELECT wanted.asked, wanted.rank, here.place, beside.*,
           sum(size) OVER (ORDER BY step, rank, chunk_index ROWS UNBOUNDED PRECEDING) AS so_far
    FROM unnest(%(ids)b::uuid[]) WITH ORDINALITY AS wanted (asked, rank)
    CROSS JOIN LATERAL (
        SELECT doc_id AS doc, chunk_index AS place FROM memory_chunks
        WHERE user_hash = %(user_hash)s AND id = asked OFFSET 0
    ) here
    CROSS JOIN LATERAL ({_BEFORE}
        UNION ALL{_AFTER}
    ) beside
) found ORDER BY rank, chunk_index
"""  # noqa: S608

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Surrounded:
    """Matches with what is around them. `truncated`: something was left out for its bytes; `unreadable`: ids of chunks
    whose seals did not open."""

    matches: list[Match]
    truncated: bool = False
    unreadable: set[UUID] = field(default_factory=set)


def with_surroundings(user_id: str, matches: Sequence[Match], *, most: int, used: int) -> Surrounded:
    """Give each match up to `most` chunks before and after it, the nearest first where MEMORY_MAX_ANSWER_BYTES has no
    room for all. `used`: bytes of the matches themselves. What has expired is not there; filters of the query do not
    apply. A match that is gone by now is left alone."""
    around = {match.id: Surroundings([], []) for match in matches}
    surrounded = Surrounded([replace(match, context=around[match.id]) for match in matches])
    truncated, room = False, settings.MEMORY_MAX_ANSWER_BYTES - used
    with tenant_transaction(user_id, planner=PINS) as user_hash, sending() as send:
        parameters = {"user_hash": user_hash, "ids": list(around), "most": most, "room": room}
        rows = send(AROUND, parameters).fetchall()
    for asked, is_before, fits, *columns in rows:
        row = StoredRow(*columns)
        if not fits:
            truncated = True
            continue
        try:
            chunk = open_row(row, user_hash).chunk
        except IntegrityFailure as failure:
            surrounded.unreadable.add(row.id)
            logger.error("integrity failure", extra={"chunk_id": str(row.id), "reason": type(failure).__name__})
        else:
            (around[asked].before if is_before else around[asked].after).append(chunk)
    return replace(surrounded, truncated=truncated)
