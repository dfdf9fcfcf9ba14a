"""Every error is problem+json and repeats nothing."""

import json
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from rest_framework import exceptions as drf
from rest_framework.request import Request
from rest_framework.views import APIView

from keys.exceptions import NonceBudgetSpent
from memory.exceptions import EmbeddingModelUnavailable, IntegrityFailure, InvalidDocument
from project import errors, urls
from tests.factories import make_user

SECRET = "the planted secret"
RAISED: dict[str, Exception] = {}


class Raising(APIView):
    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> HttpResponse:
        raise RAISED["now"]


def raising(request: HttpRequest) -> HttpResponse:
    raise RAISED["now"]


urlpatterns = [*urls.urlpatterns, path("raise/api", Raising.as_view()), path("raise/page", raising)]
handler400, handler403, handler404, handler500 = urls.handler400, urls.handler403, urls.handler404, urls.handler500


@pytest.fixture(autouse=True)
def routes(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


def answer(where: str, exc: Exception) -> Any:
    RAISED["now"] = exc
    response = Client(raise_request_exception=False).get(f"/raise/{where}")
    assert response["Content-Type"] == "application/problem+json"
    body = json.loads(response.content)
    assert body["status"] == response.status_code
    assert {"type", "title", "detail"} <= set(body)
    assert SECRET not in response.content.decode()
    assert "Traceback" not in response.content.decode()
    return response


EXPECTED = [
    (drf.ParseError("a sentence of ours"), 400),
    (drf.NotAuthenticated(), 401),
    (drf.AuthenticationFailed(SECRET), 401),
    (drf.PermissionDenied(SECRET), 403),
    (drf.NotFound(SECRET), 404),
    (drf.MethodNotAllowed(SECRET), 405),
    (drf.NotAcceptable(SECRET), 406),
    (drf.UnsupportedMediaType(SECRET), 415),
    (drf.Throttled(12.2), 429),
    (Http404(SECRET), 404),
    (PermissionDenied(SECRET), 403),
    (RequestDataTooBig(SECRET), 413),
    (SuspiciousOperation(SECRET), 400),
    (InvalidDocument("documents[0].text", "must not be empty."), 400),
    (IntegrityFailure(model="memorychunk", pk=("a" * 64, SECRET), key_id="01234567"), 500),
    (EmbeddingModelUnavailable(SECRET), 503),
    (OperationalError(SECRET), 503),
    (NonceBudgetSpent("Key 01234567 has sealed nearly 2^32 values."), 503),
    (ValueError(SECRET), 500),
]


@pytest.mark.parametrize(("exc", "status"), EXPECTED, ids=[type(exc).__name__ for exc, _ in EXPECTED])
def test_error_in_an_api_view(exc: Exception, status: int) -> None:
    assert answer("api", exc).status_code == status


@pytest.mark.parametrize(
    ("exc", "status"),
    [
        (Http404(SECRET), 404),
        (PermissionDenied(SECRET), 403),
        (SuspiciousOperation(SECRET), 400),
        (RequestDataTooBig(SECRET), 413),
        (OperationalError(SECRET), 503),
        (ValueError(SECRET), 500),
    ],
)
def test_error_in_a_page(exc: Exception, status: int) -> None:
    assert answer("page", exc).status_code == status


def test_retry_after_is_a_whole_number_of_seconds() -> None:
    assert answer("api", drf.Throttled(12.2))["Retry-After"] == "13"
    assert int(answer("api", OperationalError())["Retry-After"]) > 0
    assert int(answer("page", OperationalError())["Retry-After"]) > 0


def test_debug_shows_no_stack_of_an_api_error(settings: Any) -> None:
    settings.DEBUG = True
    assert answer("api", ValueError(SECRET)).status_code == 500


def test_unknown_address_is_a_problem_and_the_admins_is_a_page(db: None) -> None:
    client = Client()
    assert client.get("/nothing").json()["type"] == "urn:sealed-memory:not-found"
    client.force_login(_superuser(), backend="django.contrib.auth.backends.ModelBackend")
    assert client.get("/admin/nothing/")["Content-Type"].startswith("text/html")


def _superuser() -> Any:
    from tests.factories import make_user

    return make_user("root", is_staff=True, is_superuser=True)


def test_findings_are_named_by_their_place() -> None:
    detail = {"documents": {1: {"chunks": {0: {"embedding": [drf.ErrorDetail("wrong", "invalid")]}}}}}
    response = errors.invalid(detail)
    assert json.loads(response.content)["errors"] == [{"field": "documents[1].chunks[0].embedding", "message": "wrong"}]


ORIGIN = {"Origin": "https://memory.example.org", "Host": "localhost"}


def test_a_form_from_another_origin_is_told_of_the_origin_in_a_page() -> None:
    refused = Client(enforce_csrf_checks=True).post("/admin/login/", {}, headers=ORIGIN)
    text = refused.content.decode()
    assert refused.status_code == 403 and refused["Content-Type"].startswith("text/html")
    assert "CSRF_TRUSTED_ORIGINS" in text and "Host header" in text and "memory.example.org" not in text


def test_a_form_without_its_token_is_told_of_the_token() -> None:
    refused = Client(enforce_csrf_checks=True).post("/admin/login/", {})
    assert refused.status_code == 403 and "reload the page" in refused.content.decode()


def test_a_host_that_is_not_ours_is_told_so() -> None:
    page = Client().get("/admin/", headers={"Host": "elsewhere.example.org"})
    assert page.status_code == 400 and "ALLOWED_HOSTS" in page.content.decode()
    answer = Client().get("/api/v1/memories", headers={"Host": "elsewhere.example.org"})
    assert "ALLOWED_HOSTS" in answer.json()["detail"] and "elsewhere" not in answer.content.decode()


@pytest.mark.django_db
def test_a_login_that_was_on_its_way_nowhere_ends_on_the_first_page() -> None:
    make_user("root", password="right", is_staff=True, is_superuser=True)
    client = Client()
    answer = client.post("/admin/login/", {"username": "root", "password": "right"})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
