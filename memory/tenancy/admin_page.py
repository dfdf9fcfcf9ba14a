"""The admin's page of tenants: hash prefixes, counts and key ids, as the census role sees them.

Not a ModelAdmin: its queries would need a tenant's door, and an operator is no tenant.
"""

import re
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from database.roles import census

PAGE_ROWS = 50
LAST_PAGE = 10**9
PREFIX = 8
HEADERS = ["tenant", "chunks", "encryption key", "HMAC key", "since"]
TOTALS = """
SELECT count(*), coalesce(sum(chunk_count), 0)::bigint, count(*) FILTER (WHERE chunk_count > %s) FROM tenants
"""
# A prefix is a range of the primary key; the greatest hash begins with f, which g follows.
MATCHING = "user_hash >= %(prefix)s AND user_hash < %(prefix)s || 'g'"
ROWS = f"""
SELECT left(user_hash, %(shown)s) || '…', to_char(chunk_count, 'FM999,999,999,999'), enc_key_id, hmac_key_id,
       created_at::date
FROM tenants WHERE {MATCHING} ORDER BY chunk_count DESC, user_hash LIMIT %(limit)s OFFSET %(offset)s
"""  # noqa: S608
COUNT = f"SELECT count(*) FROM tenants WHERE {MATCHING}"  # noqa: S608


@dataclass(frozen=True)
class Totals:
    """Of all tenants: how many, their chunks, and how many are answered from the graph."""

    tenants: int
    chunks: int
    outgrown: int


def tenants(request: HttpRequest) -> HttpResponse:
    """The largest tenants, fifty a page; of those whose hash begins with `q`, as logs show it."""
    if not request.user.has_perm("memory.view_tenant"):
        raise PermissionDenied
    page, prefix = _page(request.GET.get("page", "")), request.GET.get("q", "").strip().rstrip("…").lower()
    is_prefix = re.fullmatch("[0-9a-f]{0,64}", prefix) is not None
    totals, found, rows = _census(page, prefix if is_prefix else None)
    context = {
        **admin.site.each_context(request),
        "title": "Tenants",
        "totals": totals,
        "found": found,
        "prefix": prefix if is_prefix else "",
        "is_prefix": is_prefix,
        "headers": HEADERS,
        "rows": rows,
        "previous": page - 1,
        "next": page + 1 if page * PAGE_ROWS < found else 0,
    }
    return TemplateResponse(request, "memory/admin_tenants.html", context)


def _page(given: str) -> int:
    """A page number from 1 that an OFFSET can hold; anything else is the first page."""
    # isdecimal, not isdigit: int() refuses "²". Nine digits first, for int() refuses thousands of them.
    return max(1, min(int(given[:10]), LAST_PAGE)) if given.isdecimal() else 1


def _census(page: int, prefix: str | None) -> tuple[Totals, int, list[tuple[Any, ...]]]:
    """Totals, how many match the prefix (None: none does), and a page of them."""
    with census() as cursor:
        cursor.execute(TOTALS, [settings.MEMORY_EXACT_SCAN_MAX])
        totals = Totals(*(cursor.fetchone() or (0, 0, 0)))
        if prefix is None:
            return totals, 0, []
        found = totals.tenants
        if prefix:
            cursor.execute(COUNT, {"prefix": prefix})
            (found,) = cursor.fetchone() or (0,)
        parameters = {"prefix": prefix, "shown": max(PREFIX, len(prefix)), "limit": PAGE_ROWS}
        cursor.execute(ROWS, {**parameters, "offset": (page - 1) * PAGE_ROWS})
        return totals, found, cursor.fetchall()
