"""Index calls that are done later: accepted with 202 (RFC 7240), and followed under an address of their own."""

from typing import Any
from uuid import UUID

from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from memory.api.base_view import MemoryAPIView
from memory.api.schema import ProblemOutput, answers
from memory.api.serializers import IndexOutput
from memory.documents.fields import StrictSerializer
from memory.documents.shape import given_documents
from memory.models import MemoryOperation
from memory.operations.queue import Operation, get_operation
from memory.operations.worker import submit
from memory.rls import current_user_id

RESPOND_ASYNC = "respond-async"
LOOK_AGAIN_SECONDS = "1"
PREFER = OpenApiParameter(
    "Prefer",
    str,
    OpenApiParameter.HEADER,
    description="`respond-async`: answer 202 at once, with a `Location` where the call can be followed (RFC 7240).",
)


class WaitInput(StrictSerializer):
    """Query parameters of an index call."""

    wait = serializers.ChoiceField(
        choices=["true", "false"], default="true", help_text="`false` is the same as `Prefer: respond-async`."
    )


class ProgressOutput(serializers.Serializer[Any]):
    chunks_done = serializers.IntegerField(help_text="Chunks embedded. They are stored all together, at the end.")
    chunks_total = serializers.IntegerField(allow_null=True, help_text="Null until the texts are split.")


class OperationOutput(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=MemoryOperation.State.values)
    progress = ProgressOutput(source="*")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    result = IndexOutput(allow_null=True, help_text="What the call would have answered; once it has succeeded.")
    error = ProblemOutput(source="problem", allow_null=True, help_text="The same; once it has failed.")


ACCEPTED = {202: OpenApiResponse(OperationOutput, "Accepted; `Location` says where to follow it.")}


class OperationView(MemoryAPIView):
    @extend_schema(
        operation_id="get_operation", summary="Follow a call", responses=answers(200, OperationOutput, missing=True)
    )
    def get(self, request: Request, operation_id: UUID) -> Response:
        """How far an index call is that was accepted with 202, and what it answered. Kept for a day after its end."""
        operation = get_operation(user_id=current_user_id(), operation_id=operation_id)
        return _told(operation, 200)


def prefers_no_wait(request: Request, wait: str) -> bool:
    """Whether an index call asks to be answered at once."""
    preferences = request.headers.get("Prefer", "").split(",")
    return wait == "false" or any(each.partition(";")[0].strip().lower() == RESPOND_ASYNC for each in preferences)


def accepted(body: Any) -> Response:
    """202 for an index call of the right shape, which is done later."""
    given_documents(body)
    operation = submit(user_id=current_user_id(), body=body)
    response = _told(operation, 202)
    response["Location"] = reverse("operation", args=[operation.id])
    response["Preference-Applied"] = RESPOND_ASYNC
    return response


def _told(operation: Operation, status: int) -> Response:
    response = Response(OperationOutput(operation).data, status)
    if operation.finished_at is None:
        response["Retry-After"] = LOOK_AGAIN_SECONDS
    return response
