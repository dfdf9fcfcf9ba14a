"""What every operation of the OpenAPI description shares: the user header and the problem answers."""

from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from memory.access.identity import USER_HEADER
from memory.documents.shape import ChunkInput


class FieldErrorOutput(serializers.Serializer[Any]):
    field = serializers.CharField()
    message = serializers.CharField()


class ProblemOutput(serializers.Serializer[Any]):
    """RFC 9457."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    errors = FieldErrorOutput(many=True, required=False)  # type: ignore[assignment]


PROBLEM_TYPE = "application/problem+json"
PROBLEMS = {
    400: "Not valid; `errors` names the fields.",
    401: "No valid access token.",
    403: "This credential may not do that.",
    413: "Too large.",
    429: "Too many requests; see Retry-After.",
    503: "The database is away; see Retry-After.",
}
NOT_FOUND = {404: "Nothing of yours under this address."}
CONFLICT = {409: "Others kept changing this meanwhile."}


def answers(
    status: int | tuple[int, str], output: Any, description: str = "", *, missing: bool = False, conflict: bool = False
) -> dict[Any, Any]:
    """The `responses` of an operation: its own answer, and the problems any operation may answer with."""
    problems = {**PROBLEMS, **(NOT_FOUND if missing else {}), **(CONFLICT if conflict else {})}
    return {
        status: OpenApiResponse(output, description),
        **{(code, PROBLEM_TYPE): OpenApiResponse(ProblemOutput, text) for code, text in problems.items()},
    }


class ChunkFieldSchema(OpenApiSerializerFieldExtension):
    """A chunk is a string, or an object of a component of its own."""

    target_class = "memory.documents.shape.ChunkField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        return {"oneOf": [{"type": "string"}, auto_schema.resolve_serializer(ChunkInput, direction).ref]}


class ExactTextSchema(OpenApiSerializerFieldExtension):
    """As far as JSON Schema can say it: `maxLength` counts characters, where the limit is one of bytes."""

    target_class = "memory.documents.fields.ExactText"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        pattern = r"^[^\x00]*$" if self.target.allow_blank else r"^[^\x00]*[^\s\x00][^\x00]*$"
        return {"type": "string", "maxLength": self.target.limit_in_bytes, "pattern": pattern}


class EmbeddingSchema(OpenApiSerializerFieldExtension):
    target_class = "memory.documents.fields.Embedding"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        dimension = settings.MEMORY_EMBEDDING_DIM
        return {
            "type": "array",
            "items": {"type": "number"},
            "minItems": dimension,
            "maxItems": dimension,
            "description": "Finite in single precision, and not all of them zero.",
        }


USER = OpenApiParameter(
    USER_HEADER,
    str,
    OpenApiParameter.HEADER,
    description="The user a service acts for, in UTF-8. Only with a service's token.",
)
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[ -~]{1,255}$"},
    OpenApiParameter.HEADER,
    description="A new one for each request, the same when it is sent again: the answer of the first time is then "
    "replayed, with `Idempotency-Replayed: true`, for a day.",
)
IDEMPOTENCY_PROBLEMS = {
    "409": "A request with this Idempotency-Key is being carried out, see Retry-After; or others kept changing this.",
    "422": "This Idempotency-Key came with another request before.",
}


class MemorySchema(AutoSchema):
    shared_parameters = [USER]

    def _get_request_body(self, direction: Any = "request") -> Any:
        body = super()._get_request_body(direction)
        return body and {**body, "required": True}

    def get_override_parameters(self) -> list[Any]:
        return [*self.shared_parameters, *([IDEMPOTENCY_KEY] if self._takes_idempotency_key() else [])]

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        if self._takes_idempotency_key():
            for code, text in IDEMPOTENCY_PROBLEMS.items():
                body = self._get_response_for_code(
                    OpenApiResponse(ProblemOutput, text), code, [PROBLEM_TYPE], direction
                )
                bodies.setdefault(code, body)
        return bodies

    def _takes_idempotency_key(self) -> bool:
        return hasattr(getattr(self.view, self.method.lower(), None), "takes_idempotency_key")


class UserlessSchema(MemorySchema):
    """Of calls that name their user themselves, not in a header."""

    shared_parameters = []
