"""Requests with an Idempotency-Key: carried out once, and answered the same each time they are sent."""

import json
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import Error as DatabaseError
from django.http import HttpResponse
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from keys.exceptions import NonceBudgetSpent
from memory import metrics
from memory.documents.shape import with_doc_ids
from memory.operations import idempotency
from memory.operations.idempotency import Answer, Held
from memory.rls import current_user_id

logger = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEPT_HEADERS = ("Location", "Preference-Applied")
# Not the end of a request: sent again, it may fare better.
PASSING = (401, 403, 409, 429)
NOT_A_KEY = f"This must be 1 to {idempotency.LONGEST_KEY} printable ASCII characters."

Handler = Callable[..., Any]


def once(handler: Handler) -> Handler:
    """Of a view's method: with an Idempotency-Key, carry a request out once and replay its answer afterwards.

    Errors that may pass (and those of the service) are not kept: the next attempt is carried out.
    """

    @wraps(handler)
    def carried_out_once(view: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        key = request.headers.get(HEADER)
        if key is None:
            return handler(view, request, *args, **kwargs)
        user_id = current_user_id()
        refuse_no_key(key, HEADER)
        held = idempotency.begin(user_id=user_id, key=key, asked=_asked(request))
        if held.answer is not None:
            metrics.REQUESTS_REPLAYED.inc()
            return _replayed(held.answer)
        request.held = held  # type: ignore[attr-defined]
        try:
            response = handler(view, request, *args, **kwargs)
        except Exception as failure:
            response = view.handle_exception(failure)
        conclude(user_id, held, _answer(response))
        return response

    carried_out_once.takes_idempotency_key = True  # type: ignore[attr-defined]
    return carried_out_once


def with_doc_ids_of(request: Request) -> Any:
    """The body of an index call. Carried out a second time, because its first answer was lost, it stores the same
    documents under the same ids."""
    held: Held | None = getattr(request, "held", None)
    if held is None:
        return request.data
    return with_doc_ids(request.data, lambda place: idempotency.stable_doc_id(held, place))


def refuse_no_key(key: Any, field: str) -> None:
    """Raise ValidationError naming `field` for what is no idempotency key."""
    is_text = isinstance(key, str) and key.isascii() and key.isprintable()
    if not is_text or not 0 < len(key) <= idempotency.LONGEST_KEY:
        raise ValidationError({field: [NOT_A_KEY]})


def _asked(request: Request) -> list[Any]:
    return [request.method, request.path_info, request.META.get("QUERY_STRING", ""), request.data]


def conclude(user_id: str, held: Held, answer: Answer) -> None:
    """Keep the answer, or let go. The caller has an answer already, whatever becomes of this."""
    try:
        if answer.status >= 500 or answer.status in PASSING:
            idempotency.release(user_id=user_id, held=held)
        else:
            idempotency.finish(user_id=user_id, held=held, answer=answer)
    except (DatabaseError, NonceBudgetSpent) as failure:
        logger.warning("an answer could not be kept", extra={"reason": type(failure).__name__})


def _answer(response: HttpResponse) -> Answer:
    headers = {name: response[name] for name in KEPT_HEADERS if name in response}
    content = JSONRenderer().render(response.data) if isinstance(response, Response) else response.content
    return Answer(response.status_code, headers, json.loads(content or b"null"))


def _replayed(answer: Answer) -> HttpResponse:
    kind = "application/json" if answer.status < 400 else "application/problem+json"
    content = JSONRenderer().render(answer.body)
    headers = {**answer.headers, REPLAYED: "true"}
    return HttpResponse(content, status=answer.status, content_type=kind, headers=headers)
