"""Addresses under /api/v1/."""

from django.urls import path

from memory.api.views import DocumentView, IndexView, MemoriesView, MemoryView, QueryView

urlpatterns = [
    path("memories", MemoriesView.as_view(), name="memories"),
    path("memories/index", IndexView.as_view(), name="memories-index"),
    path("memories/query", QueryView.as_view(), name="memories-query"),
    path("memories/<uuid:chunk_id>", MemoryView.as_view(), name="memory"),
    # A document's id may hold slashes.
    path("documents/<path:doc_id>", DocumentView.as_view(), name="document"),
]
