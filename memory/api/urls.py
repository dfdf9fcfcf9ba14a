"""Addresses under /api/v1/."""

from django.urls import path

import memory.api.converters  # noqa: F401  (registers `anytext`)
from memory.api.operation_views import OperationView
from memory.api.views import (
    BatchDeleteView,
    BatchGetView,
    DocumentView,
    ExportView,
    IndexView,
    MemoriesView,
    MemoryView,
    QueryView,
)

urlpatterns = [
    path("memories", MemoriesView.as_view(), name="memories"),
    path("memories/index", IndexView.as_view(), name="memories-index"),
    path("memories/query", QueryView.as_view(), name="memories-query"),
    path("memories/get", BatchGetView.as_view(), name="memories-get"),
    path("memories/delete", BatchDeleteView.as_view(), name="memories-delete"),
    path("memories/<uuid:chunk_id>", MemoryView.as_view(), name="memory"),
    path("operations/<uuid:operation_id>", OperationView.as_view(), name="operation"),
    path("export", ExportView.as_view(), name="export"),
    path("documents/<anytext:doc_id>", DocumentView.as_view(), name="document"),
]
