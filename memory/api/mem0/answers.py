"""What mem0's calls are answered, in the members that its clients read."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from rest_framework import serializers

from memory.access.identity import Identity
from memory.api.mem0.filters import ENTITIES
from memory.api.mem0.ids import external_name, id_for
from memory.api.mem0.messages import role_of
from memory.api.serializers import LEFT_OUT, LocalTime, local_time_text
from memory.listing import StoredChunk
from memory.search.matches import Match

STORED: Final = "Stored as given: `infer` has no effect here, no language model reads it."


class Mem0StoredOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    memory = serializers.CharField()
    event = serializers.CharField(help_text="`ADD`.")


class Mem0AddedOutput(serializers.Serializer[Any]):
    message = serializers.CharField()
    status = serializers.CharField(help_text="`SUCCEEDED`.")
    event_id = serializers.CharField(help_text="Of `GET /v1/event/<event_id>/`; there is no need to wait for it.")
    results = Mem0StoredOutput(many=True, help_text="One for each message, several for a long one.")


class Mem0MemoryOutput(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="Of a service's user: it carries the user, sealed, and is the same each time.")
    memory = serializers.CharField()
    user_id = serializers.CharField(allow_null=True, help_text="As the service calls its user; null for a person.")
    agent_id = serializers.JSONField(allow_null=True)
    app_id = serializers.JSONField(allow_null=True)
    run_id = serializers.JSONField(allow_null=True)
    role = serializers.CharField(allow_null=True, help_text="Null where a name was given.")
    actor_id = serializers.CharField(allow_null=True, help_text="The name of who said it.")
    metadata = serializers.DictField(child=serializers.JSONField())
    categories = serializers.ListField(child=serializers.CharField(), help_text="Always empty.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField(required=False, help_text="Not in the results of a search.")
    timestamp = LocalTime(allow_null=True, help_text="The time it is about.")
    expiration_date = serializers.DateField(allow_null=True, help_text="Its last day, in UTC.")


class Mem0FoundOutput(Mem0MemoryOutput):
    score = serializers.FloatField(help_text="The cosine of question and memory, 0 to 1; 0 where `degraded` says why.")


class Mem0SearchOutput(serializers.Serializer[Any]):
    results = Mem0FoundOutput(many=True)
    degraded = serializers.CharField(allow_null=True, help_text="Why keywords alone have found these; null otherwise.")
    truncated = serializers.BooleanField(help_text="Whether there would be more, had the answer room for its bytes.")
    integrity_failures = serializers.IntegerField(help_text=LEFT_OUT)


class Mem0PageOutput(serializers.Serializer[Any]):
    count = serializers.IntegerField(help_text="Of all pages together.")
    next = serializers.CharField(allow_null=True, help_text="The next page's address; the same body belongs to it.")
    previous = serializers.CharField(allow_null=True)
    results = Mem0MemoryOutput(many=True)
    integrity_failures = serializers.IntegerField(help_text=LEFT_OUT)


class Mem0EventOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    event_type = serializers.CharField(help_text="`ADD`.")
    status = serializers.CharField(help_text="`SUCCEEDED`.")
    results = Mem0StoredOutput(many=True, help_text="What is still there of it, up to a hundred.")


class Mem0MessageOutput(serializers.Serializer[Any]):
    message = serializers.CharField()


class Mem0DeletedOutput(Mem0MessageOutput):
    deleted = serializers.IntegerField()


class Mem0PingOutput(serializers.Serializer[Any]):
    status = serializers.CharField(help_text="`ok`.")
    message = serializers.CharField()
    user_email = serializers.CharField(allow_null=True, help_text="Always null.")
    org_id = serializers.CharField(help_text="The client does not start without; nothing is served under it.")
    project_id = serializers.CharField(help_text="The service's namespace, `own` for a person.")


def memory_of(chunk: StoredChunk | Match, identity: Identity) -> dict[str, Any]:
    """A memory as mem0's clients know it."""
    role, name = role_of(chunk.author)
    shown = {
        "id": id_for(identity, chunk.id),
        "memory": chunk.text,
        "user_id": external_name(identity),
        **{name: chunk.metadata.get(name) for name in ENTITIES},
        "role": role,
        "actor_id": name,
        "metadata": {name: value for name, value in chunk.metadata.items() if name not in ENTITIES},
        "categories": [],
        "created_at": _utc(chunk.created_at),
        "timestamp": chunk.occurred_at and local_time_text(chunk.occurred_at),
        # It expires as that day ends; a time in the middle of a day, given elsewhere, is of that day.
        "expiration_date": chunk.expires_at and _last_day(chunk.expires_at),
    }
    return {**shown, "updated_at": _utc(chunk.updated_at)} if isinstance(chunk, StoredChunk) else shown


def score_of(match: Match) -> float:
    """The cosine, from 0 on."""
    return max(0.0, match.explanation.dense) if match.explanation else 0.0


def _last_day(expires_at: datetime) -> str:
    return (expires_at.astimezone(UTC) - timedelta(microseconds=1)).date().isoformat()


def _utc(time: datetime) -> str:
    return local_time_text(time.astimezone(UTC))
