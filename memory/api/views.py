"""The API's verbs. A view parses, calls one function, responds."""

from uuid import UUID

from django.http import Http404, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from memory.access.scopes import TokenScope
from memory.api.base_view import MemoryAPIView, parameters_of, valid
from memory.api.once import once, with_doc_ids_of
from memory.api.operation_views import ACCEPTED, PREFER, WaitInput, accepted, prefers_no_wait
from memory.api.parsers import MergePatchParser, StrictJSONParser
from memory.api.renderers import NDJSON, NDJSONRenderer
from memory.api.schema import answers
from memory.api.serializers import (
    ChunkOutput,
    DeletedOutput,
    DocumentAddress,
    DocumentPageInput,
    DocumentPageOutput,
    ErasureOutput,
    ExportInput,
    FoundOutput,
    IdsInput,
    IndexOutput,
    ListInput,
    NoParameters,
    PageOutput,
    PatchedDocumentOutput,
    QueryInput,
    QueryOutput,
)
from memory.documents.patches import (
    DocumentPatchInput,
    MemoryPatchInput,
    chunk_patch_from,
    document_patch_from,
)
from memory.documents.shape import BatchInput, DocumentInput, documents_from
from memory.erasure import delete_chunk, delete_chunks, delete_document, erase_user
from memory.indexing import index_documents
from memory.listing import get_chunk, get_chunks, list_chunks, read_document
from memory.rls import current_user_id
from memory.search.retrieval import query_memories
from memory.verbs.exporting import Export
from memory.verbs.patching import patch_chunk, patch_document

ERASURE_NOTE = (
    "Counted in the live tables. The write-ahead log, dead tuples and backups still hold the sealed rows until vacuum "
    "has run and they have expired."
)

EXPORT_NOTE = (
    "A first line about the export, then a line for each document (several for a long one), and a last line with "
    '`"complete": true`, the counts, and how many memories were left out because their seal did not open. An export '
    "without its last line broke off."
)


class IndexView(MemoryAPIView):
    throttle_scope = "index"

    @extend_schema(
        operation_id="index_memories",
        summary="Store documents",
        request=PolymorphicProxySerializer(
            component_name="IndexInput", serializers=[DocumentInput, BatchInput], resource_type_field_name=None
        ),
        parameters=[WaitInput, PREFER],
        responses=answers(200, IndexOutput) | ACCEPTED,
    )
    @once
    def post(self, request: Request) -> Response:
        """Store one document, or `documents`, all of them or none. A `doc_id` that exists is replaced whole."""
        body = with_doc_ids_of(request)
        if prefers_no_wait(request, **parameters_of(WaitInput, request)):
            return accepted(body)
        indexed = index_documents(user_id=current_user_id(), documents=documents_from(body))
        return Response(IndexOutput({"documents": indexed}).data)


class QueryView(MemoryAPIView):
    throttle_scope = "query"
    token_scopes = {"POST": TokenScope.READ}

    @extend_schema(
        operation_id="query_memories", summary="Ask", request=QueryInput, responses=answers(200, QueryOutput)
    )
    def post(self, request: Request) -> Response:
        """The memories that answer a query best, best first."""
        result = query_memories(user_id=current_user_id(), **valid(QueryInput, request.data))
        return Response(QueryOutput(result).data)


class MemoriesView(MemoryAPIView):
    @extend_schema(
        operation_id="list_memories", summary="List", parameters=[ListInput], responses=answers(200, PageOutput)
    )
    def get(self, request: Request) -> Response:
        """Every memory that has not expired, a page at a time, newest first unless `sort` says otherwise."""
        parameters = parameters_of(ListInput, request)
        page = list_chunks(user_id=current_user_id(), after=parameters.pop("cursor", None), **parameters)
        return Response(PageOutput(page).data)

    @extend_schema(
        operation_id="erase_memories", summary="Erase everything of mine", responses=answers(200, ErasureOutput)
    )
    @once
    def delete(self, request: Request) -> Response:
        """Delete all memories of the calling user, and say what is left where."""
        parameters_of(NoParameters, request)
        receipt = erase_user(user_id=current_user_id())
        body = {"deleted": receipt.deleted, "remaining": receipt.remaining, "note": ERASURE_NOTE}
        return Response(ErasureOutput(body).data)


class ExportView(MemoryAPIView):
    renderer_classes = [NDJSONRenderer, JSONRenderer]

    @extend_schema(
        operation_id="export_memories",
        summary="Export everything of mine",
        parameters=[ExportInput],
        responses=answers((200, NDJSON), OpenApiTypes.STR, EXPORT_NOTE),
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """All memories as of one moment, as newline-delimited JSON that `manage.py import_memories` takes back."""
        lines = Export(user_id=current_user_id(), **parameters_of(ExportInput, request))
        headers = {"Content-Disposition": 'attachment; filename="memories.ndjson"', "Cache-Control": "no-store"}
        return StreamingHttpResponse(lines, content_type=NDJSON, headers=headers)


class BatchGetView(MemoryAPIView):
    token_scopes = {"POST": TokenScope.READ}

    @extend_schema(
        operation_id="get_memories", summary="Read many", request=IdsInput, responses=answers(200, FoundOutput)
    )
    def post(self, request: Request) -> Response:
        """Memories by their ids, and which of them are not there."""
        found = get_chunks(user_id=current_user_id(), chunk_ids=valid(IdsInput, request.data)["ids"])
        return Response(FoundOutput(found).data)


class BatchDeleteView(MemoryAPIView):
    token_scopes = {"POST": TokenScope.ERASE}

    @extend_schema(
        operation_id="delete_memories", summary="Delete many", request=IdsInput, responses=answers(200, DeletedOutput)
    )
    @once
    def post(self, request: Request) -> Response:
        """Delete memories by their ids, all in one transaction; ids of nothing of yours delete nothing."""
        deleted = delete_chunks(user_id=current_user_id(), chunk_ids=valid(IdsInput, request.data)["ids"])
        return Response(DeletedOutput({"deleted": deleted}).data)


class MemoryView(MemoryAPIView):
    parser_classes = [StrictJSONParser, MergePatchParser]

    @extend_schema(operation_id="get_memory", summary="Read one", responses=answers(200, ChunkOutput, missing=True))
    def get(self, request: Request, chunk_id: UUID) -> Response:
        """One memory."""
        return Response(ChunkOutput(get_chunk(user_id=current_user_id(), chunk_id=chunk_id)).data)

    @extend_schema(
        operation_id="patch_memory",
        summary="Change one",
        request=MemoryPatchInput,
        responses=answers(200, ChunkOutput, missing=True, conflict=True),
    )
    @once
    def patch(self, request: Request, chunk_id: UUID) -> Response:
        """Change a memory; its id and `created_at` stay. A text that does not change is not embedded again."""
        patch = chunk_patch_from(request.data)
        return Response(ChunkOutput(patch_chunk(user_id=current_user_id(), chunk_id=chunk_id, patch=patch)).data)

    @extend_schema(
        operation_id="delete_memory", summary="Delete one", responses=answers(200, DeletedOutput, missing=True)
    )
    @once
    def delete(self, request: Request, chunk_id: UUID) -> Response:
        """Delete one memory."""
        return _deleted(delete_chunk(user_id=current_user_id(), chunk_id=chunk_id))


class DocumentView(MemoryAPIView):
    parser_classes = [StrictJSONParser, MergePatchParser]

    @extend_schema(
        operation_id="get_document",
        summary="Read a document",
        parameters=[DocumentPageInput],
        responses=answers(200, DocumentPageOutput, missing=True),
    )
    def get(self, request: Request, doc_id: str) -> Response:
        """The memories of one document in its order, a page at a time."""
        parameters = parameters_of(DocumentPageInput, request)
        address = valid(DocumentAddress, {"doc_id": doc_id})
        page = read_document(user_id=current_user_id(), after=parameters.pop("cursor", None), **address, **parameters)
        return Response(DocumentPageOutput({**vars(page), **address}).data)

    @extend_schema(
        operation_id="patch_document",
        summary="Change a document",
        request=DocumentPatchInput,
        responses=answers(200, PatchedDocumentOutput, missing=True, conflict=True),
    )
    @once
    def patch(self, request: Request, doc_id: str) -> Response:
        """Change every memory of one document. A new `text` is split anew; what of it was there keeps its id."""
        address, patch = valid(DocumentAddress, {"doc_id": doc_id}), document_patch_from(request.data)
        return Response(PatchedDocumentOutput(patch_document(user_id=current_user_id(), patch=patch, **address)).data)

    @extend_schema(
        operation_id="delete_document",
        summary="Delete a document",
        responses=answers(200, DeletedOutput, missing=True),
    )
    @once
    def delete(self, request: Request, doc_id: str) -> Response:
        """Delete every memory of one document."""
        return _deleted(delete_document(user_id=current_user_id(), **valid(DocumentAddress, {"doc_id": doc_id})))


def _deleted(count: int) -> Response:
    if not count:
        raise Http404
    return Response(DeletedOutput({"deleted": count}).data)
