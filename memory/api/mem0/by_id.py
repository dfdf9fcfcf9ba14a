"""mem0's calls about memories by their ids, which tell whose they are."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from memory.api.base_view import parameters_of, valid
from memory.api.mem0 import answers as told
from memory.api.mem0.base import Mem0View
from memory.api.mem0.ids import read_id
from memory.api.mem0.shapes import Mem0BatchDeleteInput, Mem0BatchUpdateInput, Mem0DeleteInput, Mem0UpdateInput
from memory.api.once import once
from memory.api.schema import answers
from memory.api.serializers import NoParameters
from memory.documents.patches import Patch
from memory.erasure import delete_chunk, delete_chunks
from memory.exceptions import ChunkNotFound, InvalidDocument
from memory.listing import get_chunk, get_chunks
from memory.rls import current_user_id
from memory.verbs.patching import patch_chunk

PATCHED: Final = {"text": "text", "timestamp": "occurred_at", "expiration_date": "expires_at"}
ONE_USER: Final = "All memories of a batch are of one user."


def patch_from(given: Mapping[str, Any]) -> Patch:
    """What a valid call changes."""
    values = {ours: given[name] for name, ours in PATCHED.items() if name in given}
    return Patch(values=values, metadata=given.get("metadata", {}))


class MemoryView(Mem0View):
    def named_user(self, request: Request) -> str | None:
        parameters_of(Mem0DeleteInput if request.method == "DELETE" else NoParameters, request)
        user, self.chunk_id = read_id(self.caller, str(self.kwargs["memory_id"]))
        return user

    @extend_schema(
        operation_id="mem0_get", summary="mem0: read one", responses=answers(200, told.Mem0MemoryOutput, missing=True)
    )
    def get(self, request: Request, memory_id: str) -> Response:
        """One memory."""
        return self._told(get_chunk(user_id=current_user_id(), chunk_id=self.chunk_id))

    @extend_schema(
        operation_id="mem0_update",
        summary="mem0: change one",
        request=Mem0UpdateInput,
        responses=answers(200, told.Mem0MemoryOutput, missing=True, conflict=True),
    )
    @once
    def put(self, request: Request, memory_id: str) -> Response:
        """Change a memory; what is not named stays, and metadata is merged."""
        patch = patch_from(valid(Mem0UpdateInput, request.data))
        return self._told(patch_chunk(user_id=current_user_id(), chunk_id=self.chunk_id, patch=patch))

    @extend_schema(
        operation_id="mem0_delete",
        summary="mem0: delete one",
        parameters=[Mem0DeleteInput],
        responses=answers(200, told.Mem0MessageOutput, missing=True),
    )
    @once
    def delete(self, request: Request, memory_id: str) -> Response:
        """Delete one memory."""
        if not delete_chunk(user_id=current_user_id(), chunk_id=self.chunk_id):
            raise Http404
        return Response({"message": "Memory deleted successfully!"})

    def _told(self, chunk: Any) -> Response:
        return Response(told.memory_of(chunk, self.identity))


class BatchView(Mem0View):
    throttle_scope = "index"

    def named_user(self, request: Request) -> str | None:
        parameters_of(NoParameters, request)
        takes = Mem0BatchUpdateInput if request.method == "PUT" else Mem0BatchDeleteInput
        self.given = valid(takes, request.data)["memories"]
        read = [self._read(each["memory_id"]) for each in self.given]
        users = {user for user, chunk_id in read if chunk_id}
        if not users:
            raise ChunkNotFound(ChunkNotFound.__doc__)
        if len(users) > 1:
            raise InvalidDocument("memories", ONE_USER)
        self.chunk_ids = [chunk_id for _, chunk_id in read]
        return users.pop()

    @extend_schema(
        operation_id="mem0_batch_update",
        summary="mem0: change many",
        request=Mem0BatchUpdateInput,
        responses=answers(200, told.Mem0MessageOutput, missing=True, conflict=True),
    )
    @once
    def put(self, request: Request) -> Response:
        """Change memories one after the other; nothing where one of them is not there to begin with."""
        user_id, ids = current_user_id(), [chunk_id for chunk_id in self.chunk_ids if chunk_id]
        if len(ids) < len(self.given) or get_chunks(user_id=user_id, chunk_ids=ids).missing:
            raise ChunkNotFound(ChunkNotFound.__doc__)
        for chunk_id, changes in zip(ids, self.given, strict=True):
            patch_chunk(user_id=user_id, chunk_id=chunk_id, patch=patch_from(changes))
        return Response({"message": f"Successfully updated {len(ids)} memories"})

    @extend_schema(
        operation_id="mem0_batch_delete",
        summary="mem0: delete many",
        request=Mem0BatchDeleteInput,
        responses=answers(200, told.Mem0DeletedOutput, missing=True),
    )
    @once
    def delete(self, request: Request) -> Response:
        """Delete memories, all in one transaction; ids of nothing delete nothing, and alone they are a 404."""
        ids = [chunk_id for chunk_id in self.chunk_ids if chunk_id]
        deleted = delete_chunks(user_id=current_user_id(), chunk_ids=ids)
        if not deleted:
            raise Http404
        return Response({"message": f"Successfully deleted {deleted} memories", "deleted": deleted})

    def _read(self, given: str) -> tuple[str | None, UUID | None]:
        try:
            return read_id(self.caller, given)
        except ChunkNotFound:
            return None, None
