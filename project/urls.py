"""Every URL that the service answers."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from memory.api.mcp.views import MCPView
from memory.tenancy.admin_page import tenants
from project.health import healthz, readyz
from project.metrics import metrics, rerank_metrics

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/memory/tenants/", admin.site.admin_view(tenants), name="admin_tenants"),
    path("admin/", admin.site.urls),
    path("api/v1/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/v1/docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    path("api/v1/rerank/metrics", rerank_metrics, name="rerank-metrics"),
    path("api/v1/", include("memory.api.urls")),
    path("api/mem0/", include("memory.api.mem0.urls")),
    path("api/mcp", MCPView.as_view(), name="mcp"),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
]

handler400 = "project.errors.bad_request"
handler403 = "project.errors.permission_denied"
handler404 = "project.errors.not_found"
handler500 = "project.errors.server_error"
