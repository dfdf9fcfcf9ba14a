"""The admin's page of tenants: hash prefixes, counts and key ids, as the census role sees them.

Not a ModelAdmin: its queries would need a tenant's door, and an operator is no tenant.
"""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from database.roles import census

PAGE_ROWS = 100
LAST_PAGE = 10**9
PREFIX = 8
HEADERS = ["tenant", "chunks", "encryption key", "HMAC key", "since"]


def tenants(request: HttpRequest) -> HttpResponse:
    """The largest tenants, a hundred a page."""
    if not request.user.has_perm("memory.view_tenant"):
        raise PermissionDenied
    page = _page(request.GET.get("page", ""))
    total, rows = _census(page)
    context = {
        **admin.site.each_context(request),
        "title": "Tenants",
        "total": total,
        "table": {"headers": HEADERS, "rows": rows},
        "previous": page - 1,
        "next": page + 1 if page * PAGE_ROWS < total else 0,
    }
    return TemplateResponse(request, "memory/admin_tenants.html", context)


def _page(given: str) -> int:
    """A page number from 1 that an OFFSET can hold; anything else is the first page."""
    # isdecimal, not isdigit: int() refuses "²". Nine digits first, for int() refuses thousands of them.
    return max(1, min(int(given[:10]), LAST_PAGE)) if given.isdecimal() else 1


def _census(page: int) -> tuple[int, list[tuple[Any, ...]]]:
    with census() as cursor:
        cursor.execute("SELECT count(*) FROM tenants")
        (total,) = cursor.fetchone() or (0,)
        cursor.execute(
            "SELECT left(user_hash, %s) || '…', chunk_count, enc_key_id, hmac_key_id, created_at::date FROM tenants"
            " ORDER BY chunk_count DESC, user_hash LIMIT %s OFFSET %s",
            [PREFIX, PAGE_ROWS, (page - 1) * PAGE_ROWS],
        )
        return total, cursor.fetchall()
