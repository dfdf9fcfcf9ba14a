"""mem0's calls that are about many memories of one user: add, search, list, delete; and what is not served."""

import uuid
from typing import Any, Final, NoReturn

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from memory.access.scopes import TokenScope
from memory.api.base_view import parameters_of, valid
from memory.api.mem0 import answers as told
from memory.api.mem0.base import Mem0View
from memory.api.mem0.filters import ENTITIES, USER, Narrowing, narrowing_from
from memory.api.mem0.ids import EVENT, id_for, read_id
from memory.api.mem0.messages import document_from, labels_from
from memory.api.mem0.shapes import Mem0AddInput, Mem0EntitiesInput, Mem0ListInput, Mem0PageInput, Mem0SearchInput
from memory.api.once import once
from memory.api.schema import answers
from memory.api.serializers import NoParameters
from memory.erasure import delete_matching, erase_user
from memory.exceptions import DocumentTooLarge, EmbeddingModelUnavailable, InvalidFilter, NotServed
from memory.indexing import index_documents
from memory.listing import count_chunks, list_chunks, read_document
from memory.operations import idempotency
from memory.rls import current_user_id
from memory.search.filters import Scope
from memory.search.retrieval import query_memories

ALICE: Final = {"user_id": "alice"}
NAME_WHAT: Final = f"Name what to delete: {USER} (`*` with a person's token: everything), or {', '.join(ENTITIES)}."
NO_PROFILES: Final = "Not served: no language model writes profiles here."
SHOWN_OF_EVENT: Final = 100


class PingView(Mem0View):
    def bind_user(self, request: Request) -> None:
        """No user: the client asks only whether its token is good."""

    @extend_schema(operation_id="mem0_ping", summary="mem0: ping", responses=answers(200, told.Mem0PingOutput))
    def get(self, request: Request) -> Response:
        """Whether the token is good; mem0's client asks as it starts."""
        parameters_of(NoParameters, request)
        # The client does not start without the two ids, though nothing is served under them.
        named = {"org_id": "sealed-memory", "project_id": self.caller.namespace or "own", "user_email": None}
        return Response({"status": "ok", "message": "Sealed Memory", **named})


class ScopedView(Mem0View):
    """A call whose body says in `filters`, or beside them, whose memories it is about."""

    takes: type[Any]

    def named_user(self, request: Request) -> str | None:
        parameters_of(self.parameters, request)
        # A request without a body is not one with an empty object.
        self.given = valid(self.takes, request.data if request.stream else None)
        self.narrowing = self.narrow()
        return self.narrowing.user

    parameters: type[Any] = NoParameters

    def narrow(self) -> Narrowing:
        return narrowing_from(self.given)


class AddView(ScopedView):
    throttle_scope = "index"
    takes = Mem0AddInput

    @extend_schema(
        operation_id="mem0_add",
        summary="mem0: add",
        request=Mem0AddInput,
        responses=answers(200, told.Mem0AddedOutput),
        examples=[
            OpenApiExample(
                "A conversation",
                {
                    "messages": [
                        {"role": "user", "content": "I am allergic to penicillin."},
                        {"role": "assistant", "content": "I will remember that."},
                    ],
                    "run_id": "intake-7",
                    **ALICE,
                },
                request_only=True,
            )
        ],
    )
    @once
    def post(self, request: Request) -> Response:
        """Store messages as they are, together as one document. They are found when the answer comes."""
        held = getattr(request, "held", None)
        doc_id = uuid.UUID(idempotency.stable_doc_id(held, 0)) if held else uuid.uuid4()
        document = document_from(self.given, labels_from(self.narrowing), str(doc_id))
        (stored,) = index_documents(user_id=current_user_id(), documents=[document])
        results = [
            {"id": id_for(self.identity, chunk_id), "memory": chunk.text, "event": "ADD"}
            for chunk_id, chunk in zip(stored.chunk_ids, document.chunks, strict=True)
        ]
        event_id = id_for(self.identity, doc_id, EVENT)
        body = {"message": told.STORED, "status": "SUCCEEDED", "event_id": event_id, "results": results}
        return Response(body)


class SearchView(ScopedView):
    throttle_scope = "query"
    token_scopes = {"POST": TokenScope.READ}
    takes = Mem0SearchInput

    @extend_schema(
        operation_id="mem0_search",
        summary="mem0: search",
        request=Mem0SearchInput,
        responses=answers(200, told.Mem0SearchOutput),
        examples=[
            OpenApiExample(
                "Of one user, in any run",
                {
                    "query": "Which medicine must I not take?",
                    "filters": {"AND": [ALICE, {"run_id": "*"}]},
                    "top_k": 3,
                },
                request_only=True,
            )
        ],
    )
    def post(self, request: Request) -> Response:
        """The memories that answer a query best, best first."""
        threshold = self.given.get("threshold")
        found = query_memories(
            user_id=current_user_id(),
            query=self.given["query"],
            top_k=self.given["top_k"],
            scope=Scope(filter=self.narrowing.filter),
            explain=True,
            rerank=self.given.get("rerank", True),
            asked_at=self.given.get("reference_date"),
        )
        if found.degraded and threshold is not None:  # keywords tell no cosine that could be compared
            raise EmbeddingModelUnavailable(EmbeddingModelUnavailable.__doc__ or "", found.degraded)
        scores = [0.0 if found.degraded else told.score_of(match) for match in found.matches]
        results = [
            {**told.memory_of(match, self.identity), "score": score}
            for match, score in zip(found.matches, scores, strict=True)
            if threshold is None or score >= threshold
        ]
        body = {"degraded": found.degraded and found.degraded.value, "truncated": found.truncated}
        return Response({"results": results, **body, "integrity_failures": found.integrity_failures})


class MemoriesView(ScopedView):
    token_scopes = {"POST": TokenScope.READ}
    takes, parameters = Mem0ListInput, Mem0PageInput

    def narrow(self) -> Narrowing:
        bounds = {"gte": self.given.get("start_date"), "lte": self.given.get("end_date")}
        told_bounds = {operator: time.isoformat() for operator, time in bounds.items() if time}
        return narrowing_from(self.given, extra={"created_at": told_bounds} if told_bounds else None)

    @extend_schema(
        operation_id="mem0_list",
        summary="mem0: list",
        request=Mem0ListInput,
        parameters=[Mem0PageInput],
        responses=answers(200, told.Mem0PageOutput),
        examples=[OpenApiExample("Of one user", {"filters": ALICE}, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        """Memories, newest first, a numbered page at a time."""
        page = parameters_of(Mem0PageInput, request)
        number, size = page["page"], page["page_size"]
        user_id, skip = current_user_id(), (number - 1) * size
        count = count_chunks(user_id=user_id, filter=self.narrowing.filter)
        shown = list_chunks(user_id=user_id, limit=size, skip=skip, filter=self.narrowing.filter)
        if shown.next_after is not None and len(shown.chunks) + shown.integrity_failures < size:
            raise DocumentTooLarge("page_size", "An answer has no room for that many of these: ask for fewer.")
        body = {
            "count": count,
            "next": self._address(request, number + 1, size) if skip + size < count else None,
            "previous": self._address(request, number - 1, size) if number > 1 else None,
            "results": [told.memory_of(chunk, self.identity) for chunk in shown.chunks],
            "integrity_failures": shown.integrity_failures,
        }
        return Response(body)

    def _address(self, request: Request, page: int, size: int) -> str:
        return request.build_absolute_uri(f"?page={page}&page_size={size}")


class DeleteAllView(Mem0View):
    def named_user(self, request: Request) -> str | None:
        given = parameters_of(Mem0EntitiesInput, request)
        if not given:
            raise InvalidFilter(USER, NAME_WHAT)
        self.narrowing = narrowing_from(given)
        return self.narrowing.user

    @extend_schema(
        operation_id="mem0_delete_all",
        summary="mem0: delete all",
        parameters=[Mem0EntitiesInput],
        responses=answers(200, told.Mem0DeletedOutput),
    )
    @once
    def delete(self, request: Request) -> Response:
        """Delete all memories of a user, or those of an agent, an app or a run of that user's."""
        user_id, narrowed = current_user_id(), self.narrowing.filter
        if narrowed is None:
            deleted = erase_user(user_id=user_id).deleted.get("memory_chunks", 0)
        else:
            deleted = delete_matching(user_id=user_id, filter=narrowed)
        return Response({"message": "Memories deleted successfully!", "deleted": deleted})


class UserView(Mem0View):
    def named_user(self, request: Request) -> str | None:
        parameters_of(NoParameters, request)
        return str(self.kwargs["name"])

    @extend_schema(
        operation_id="mem0_delete_user",
        summary="mem0: delete a user",
        parameters=[OpenApiParameter("name", str, OpenApiParameter.PATH, description="`*`: the person's own.")],
        responses=answers(200, told.Mem0MessageOutput),
    )
    @once
    def delete(self, request: Request, name: str) -> Response:
        """Delete everything of a user."""
        erase_user(user_id=current_user_id())
        return Response({"message": "User deleted successfully!"})


class ProfileView(UserView):
    """The profile of a user; or a user whose name ends so, for users may be called anything."""

    schema = None

    def named_user(self, request: Request) -> str | None:
        return f"{super().named_user(request)}/profile"

    def get(self, request: Request, name: str) -> NoReturn:
        """501: nothing of this user is read."""
        raise NotServed(NO_PROFILES)


class EventView(Mem0View):
    def named_user(self, request: Request) -> str | None:
        parameters_of(NoParameters, request)
        user, self.doc_id = read_id(self.caller, str(self.kwargs["event_id"]), EVENT)
        return user

    @extend_schema(
        operation_id="mem0_event",
        summary="mem0: what became of an add",
        responses=answers(200, told.Mem0EventOutput, missing=True),
    )
    def get(self, request: Request, event_id: str) -> Response:
        """An add is done when it is answered: what is still there of it."""
        page = read_document(user_id=current_user_id(), doc_id=str(self.doc_id), limit=SHOWN_OF_EVENT)
        results = [
            {"id": id_for(self.identity, chunk.id), "memory": chunk.text, "event": "ADD"} for chunk in page.chunks
        ]
        return Response({"id": event_id, "event_type": "ADD", "status": "SUCCEEDED", "results": results})


class NotServedView(Mem0View):
    """An address of mem0's that nothing here could answer."""

    schema = None
    sentence = ""

    def bind_user(self, request: Request) -> None:
        """No user: nothing is read."""

    def refuse(self, request: Request, *args: Any, **kwargs: Any) -> NoReturn:
        """501, with what to do instead."""
        raise NotServed(self.sentence)

    get = post = put = patch = delete = refuse
