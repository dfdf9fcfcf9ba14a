"""The base of the API's views, and how they read what a request gives."""

from functools import cache
from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.views import APIView

from memory.api.throttling import IdentityThrottle
from memory.documents.fields import safe_name


class MemoryAPIView(APIView):
    """Counts against one of the throttle scopes `index`, `query` and `other`."""

    throttle_classes = [IdentityThrottle]
    throttle_scope = "other"


def valid(serializer_class: Any, data: Any) -> dict[str, Any]:
    """What a serializer makes of data. Raises ValidationError."""
    if data is None:  # which alone `is_valid` answers in words of its own
        serializer_class(data=None).is_valid(raise_exception=True)
    return dict(_shared(serializer_class).run_validation(data))


@cache
def _shared(serializer_class: Any) -> Any:
    """One serializer for all requests. It holds nothing of them; copying its fields takes longer than validating."""
    return serializer_class()


def parameters_of(serializer_class: Any, request: Request) -> dict[str, Any]:
    """The query string, each parameter given once. Raises ValidationError."""
    repeated = {
        safe_name(name): ["Give this once."] for name, values in request.query_params.lists() if len(values) > 1
    }
    if repeated:
        raise ValidationError(repeated)
    return valid(serializer_class, request.query_params.dict())
