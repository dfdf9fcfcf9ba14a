"""Addresses under /api/mem0/, as mem0's client has them: with a slash at the end."""

from typing import Final

from django.urls import path

import memory.api.converters  # noqa: F401  (registers `anytext`)
from memory.api.mem0.by_id import BatchView, MemoryView
from memory.api.mem0.views import (
    NO_PROFILES,
    AddView,
    DeleteAllView,
    EventView,
    MemoriesView,
    NotServedView,
    PingView,
    ProfileView,
    SearchView,
    UserView,
)

NO_ENTITIES: Final = "Not served: no call looks across users. Delete a user's own memories with DELETE /v1/memories/."
NO_PROJECTS: Final = "Not served: there are no organizations, projects or webhooks; see the admin and the settings."
NOT_SERVED: Final = {
    "v1/entities/": NO_ENTITIES,
    "v2/entities/": NO_ENTITIES,
    "v2/entities/<str:kind>/<anytext:name>/": NO_ENTITIES,
    "v2/profiles/<anytext:rest>": NO_PROFILES,
    "v1/exports/": "Not served: GET /api/v1/export gives everything of a user.",
    "v1/exports/get/": "Not served: GET /api/v1/export gives everything of a user.",
    "v1/summary/": "Not served: no language model writes summaries here.",
    "v1/feedback/": "Not served: nothing here learns from feedback.",
    "v1/memories/<anytext:memory_id>/history/": "Not served: former versions of a memory are not kept.",
    "api/v1/<anytext:rest>": NO_PROJECTS,
}


urlpatterns = [
    path("v1/ping/", PingView.as_view(), name="mem0-ping"),
    path("v3/memories/add/", AddView.as_view(), name="mem0-add"),
    path("v3/memories/search/", SearchView.as_view(), name="mem0-search"),
    path("v3/memories/", MemoriesView.as_view(), name="mem0-list"),
    path("v1/memories/", DeleteAllView.as_view(), name="mem0-delete-all"),
    path("v1/batch/", BatchView.as_view(), name="mem0-batch"),
    path("v1/event/<str:event_id>/", EventView.as_view(), name="mem0-event"),
    path("v1/memories/<str:memory_id>/", MemoryView.as_view(), name="mem0-memory"),
    path("v2/entities/user/<anytext:name>/profile/", ProfileView.as_view(), name="mem0-profile"),
    path("v2/entities/user/<anytext:name>/", UserView.as_view(), name="mem0-user"),
    *(path(address, NotServedView.as_view(sentence=sentence)) for address, sentence in NOT_SERVED.items()),
]
