"""Lists and counts tenants as the census role, which sees hashes, key ids, dates and counts, but no seal.

The role has a policy of its own on the tenant tables and column grants on these columns alone, so it needs no door.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from database.roles import census
from keys.retry_while_away import retry_while_away
from memory.security import UserHash

Hash = TypeVar("Hash", bound=str)

TENANTS_A_PAGE = 1_000


def all_tenants(*, after: str = "", not_under: str = "") -> Iterator[UserHash]:
    """Every tenant after `after` in the order of the hashes; with `not_under` only those under another HMAC key."""
    return in_pages(_tenants_page, after=after, not_under=not_under)


def in_pages(page: Callable[..., list[Hash]], *, after: str, **options: str) -> Iterator[Hash]:
    """Hashes page by page; a page is read when those before it are used up, and retried while the database is away."""
    while hashes := retry_while_away(page, after=after, **options):
        yield from hashes
        after = hashes[-1]


def _tenants_page(*, after: str, not_under: str) -> list[UserHash]:
    with census() as cursor:
        cursor.execute(
            "SELECT user_hash, hmac_key_id FROM tenants"
            " WHERE user_hash > %s AND hmac_key_id <> %s ORDER BY user_hash LIMIT %s",
            [after, not_under, TENANTS_A_PAGE],
        )
        return [UserHash(*row) for row in cursor.fetchall()]


def totals_by_hmac_key() -> dict[str, tuple[int, int]]:
    """Tenants and chunks by HMAC key id."""
    with census() as cursor:
        cursor.execute("SELECT hmac_key_id, count(*), sum(chunk_count)::bigint FROM tenants GROUP BY 1 ORDER BY 1")
        return {key_id: (tenants, chunks) for key_id, tenants, chunks in cursor.fetchall()}


def orphan_hashes() -> list[str]:
    """Hashes that chunks or operations carry and no tenant has."""
    parts = [
        f"SELECT user_hash FROM {table} AS row WHERE NOT EXISTS"  # noqa: S608
        " (SELECT 1 FROM tenants WHERE tenants.user_hash = row.user_hash)"
        for table in ("memory_chunks", "memory_operations")
    ]
    with census() as cursor:
        cursor.execute(f"{' UNION '.join(parts)} ORDER BY 1")
        return [user_hash for (user_hash,) in cursor.fetchall()]


def tenants_without_row_set() -> list[UserHash]:
    """Tenants whose set of rows has no digest: from before rows had MACs, or somebody took it away."""
    with census() as cursor:
        cursor.execute("SELECT user_hash, hmac_key_id FROM tenants WHERE row_set IS NULL ORDER BY user_hash")
        return [UserHash(*row) for row in cursor.fetchall()]


def known_hashes(user_hashes: Sequence[str]) -> set[str]:
    """Those of these hashes that a tenant has."""
    with census() as cursor:
        cursor.execute("SELECT user_hash FROM tenants WHERE user_hash = ANY (%s)", [list(user_hashes)])
        return {user_hash for (user_hash,) in cursor.fetchall()}
