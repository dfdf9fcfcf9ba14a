"""What the census role may see of tenants: hashes, key ids, counts; no seal, and no door is opened here.

It has a policy of its own on the tenant tables and column grants on these columns alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from database.roles import census
from keys.retry_while_away import retry_while_away

TENANTS_A_PAGE = 1_000


@dataclass(frozen=True)
class TenantFacts:
    """A tenant as the census sees it."""

    user_hash: str
    enc_key_id: str
    hmac_key_id: str
    chunk_count: int


def tenants_page(*, after: str = "", limit: int = TENANTS_A_PAGE, not_under: str = "") -> list[TenantFacts]:
    """Tenants by their hash, behind `after`; with `not_under` only those under another HMAC key."""
    with census() as cursor:
        cursor.execute(
            "SELECT user_hash, enc_key_id, hmac_key_id, chunk_count FROM tenants"
            " WHERE user_hash > %s AND hmac_key_id <> %s ORDER BY user_hash LIMIT %s",
            [after, not_under, limit],
        )
        return [TenantFacts(*row) for row in cursor.fetchall()]


def all_tenants(*, not_under: str = "") -> Iterator[TenantFacts]:
    """Every tenant by its hash, read page by page while the work on it goes on; waits for a database that is away."""
    after = ""
    while page := retry_while_away(tenants_page, after=after, not_under=not_under):
        yield from page
        after = page[-1].user_hash


def totals_by_hmac_key() -> dict[str, tuple[int, int]]:
    """Tenants and chunks by HMAC key id."""
    with census() as cursor:
        cursor.execute("SELECT hmac_key_id, count(*), sum(chunk_count)::bigint FROM tenants GROUP BY 1 ORDER BY 1")
        return {key_id: (tenants, chunks) for key_id, tenants, chunks in cursor.fetchall()}


def orphan_hashes() -> list[str]:
    """Hashes that chunks carry and no tenant has."""
    with census() as cursor:
        cursor.execute(
            "SELECT DISTINCT user_hash FROM memory_chunks AS chunk WHERE NOT EXISTS"
            " (SELECT 1 FROM tenants WHERE tenants.user_hash = chunk.user_hash) ORDER BY 1"
        )
        return [user_hash for (user_hash,) in cursor.fetchall()]


def known_hashes(user_hashes: Sequence[str]) -> set[str]:
    """Those of these hashes that are tenants'."""
    with census() as cursor:
        cursor.execute("SELECT user_hash FROM tenants WHERE user_hash = ANY (%s)", [list(user_hashes)])
        return {user_hash for (user_hash,) in cursor.fetchall()}
