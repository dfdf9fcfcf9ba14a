"""`/metrics`, for Prometheus, and `/api/v1/rerank/metrics`, the reranker's figures of one process.

Closed unless METRICS_TOKEN or METRICS_ALLOWED_NETWORKS opens it. The loopback address is not trusted by default: behind
a proxy on the same host every request comes from it. With several worker processes PROMETHEUS_MULTIPROC_DIR (which
`project/gunicorn.py` sets) makes one scrape cover all of them.
"""

from hmac import compare_digest
from ipaddress import ip_address, ip_network

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_prometheus.exports import ExportToDjangoView

from project import database_metrics
from project.errors import problem
from rerank import get_rerank_metrics

PROXY_HEADERS = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus' text format, or 403: what processes counted, then what the database knows."""
    if not _may_read(request):
        return _refusal()
    response = ExportToDjangoView(request)
    response.content += database_metrics.page.text()
    return response


@never_cache
@require_safe
def rerank_metrics(request: HttpRequest) -> HttpResponse:
    """`get_rerank_metrics()` of the process that answers, or 403.

    Not in the OpenAPI description, which lists what users' tokens give access to: none gives access to this.
    """
    return JsonResponse(get_rerank_metrics()) if _may_read(request) else _refusal()


def _refusal() -> HttpResponse:
    return problem(403, "Send METRICS_TOKEN as a bearer token, or scrape from METRICS_ALLOWED_NETWORKS.")


def _may_read(request: HttpRequest) -> bool:
    return _bears_token(request) or _comes_from_allowed_network(request)


def _bears_token(request: HttpRequest) -> bool:
    expected = f"Bearer {settings.METRICS_TOKEN}"
    given = request.META.get("HTTP_AUTHORIZATION", "")
    return bool(settings.METRICS_TOKEN) and compare_digest(given.encode(), expected.encode())


def _comes_from_allowed_network(request: HttpRequest) -> bool:
    """Only direct requests count: one that came through a proxy has the proxy's address."""
    if any(header in request.META for header in PROXY_HEADERS):
        return False
    try:
        address = ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return False
    return any(address in ip_network(network, strict=False) for network in settings.METRICS_ALLOWED_NETWORKS)
