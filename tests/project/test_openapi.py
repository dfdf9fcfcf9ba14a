from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from django.test import Client

MEM0 = "/api/mem0"


def schema() -> dict:  # type: ignore[type-arg]
    out = StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    return yaml.safe_load(out.getvalue())


def parameters(operation: dict[str, Any]) -> set[str]:
    return {parameter["name"] for parameter in operation.get("parameters", [])}


def test_description_is_valid_openapi_without_a_warning_and_tells_of_every_verb() -> None:
    described = schema()
    verbs = {(path, verb) for path, verbs in described["paths"].items() for verb in verbs}
    assert verbs == {
        ("/api/v1/memories", "get"),
        ("/api/v1/memories", "delete"),
        ("/api/v1/memories/index", "post"),
        ("/api/v1/memories/query", "post"),
        ("/api/v1/export", "get"),
        ("/api/v1/memories/get", "post"),
        ("/api/v1/memories/delete", "post"),
        ("/api/v1/memories/{chunk_id}", "get"),
        ("/api/v1/memories/{chunk_id}", "patch"),
        ("/api/v1/memories/{chunk_id}", "delete"),
        ("/api/v1/operations/{operation_id}", "get"),
        ("/api/v1/documents/{doc_id}", "get"),
        ("/api/v1/documents/{doc_id}", "patch"),
        ("/api/v1/documents/{doc_id}", "delete"),
        (f"{MEM0}/v1/ping/", "get"),
        (f"{MEM0}/v3/memories/add/", "post"),
        (f"{MEM0}/v3/memories/search/", "post"),
        (f"{MEM0}/v3/memories/", "post"),
        (f"{MEM0}/v1/memories/", "delete"),
        (f"{MEM0}/v1/memories/{{memory_id}}/", "get"),
        (f"{MEM0}/v1/memories/{{memory_id}}/", "put"),
        (f"{MEM0}/v1/memories/{{memory_id}}/", "delete"),
        (f"{MEM0}/v1/batch/", "put"),
        (f"{MEM0}/v1/batch/", "delete"),
        (f"{MEM0}/v1/event/{{event_id}}/", "get"),
        (f"{MEM0}/v2/entities/user/{{name}}/", "delete"),
    }


def test_every_operation_tells_of_its_problems_and_of_the_user_header() -> None:
    """mem0's calls name their user themselves, and are refused with the header."""
    for path, verbs in schema()["paths"].items():
        for operation in verbs.values():
            assert {"400", "401", "403", "413", "429", "503"} <= set(operation["responses"])
            assert "application/problem+json" in operation["responses"]["400"]["content"]
            assert ("X-Memory-User" in parameters(operation)) == (not path.startswith(f"{MEM0}/"))
            assert operation["security"] == [{"accessToken": []}, {"session": []}]


def test_every_reference_leads_somewhere() -> None:
    described = schema()
    refs = list(_refs(described))
    assert "#/components/schemas/ChunkInputRequest" in refs
    for ref in refs:
        target: Any = described
        for step in ref.removeprefix("#/").split("/"):
            target = target[step]


def test_a_body_that_is_read_is_required() -> None:
    posts = [verbs["post"] for verbs in schema()["paths"].values() if "post" in verbs]
    assert posts and all(post["requestBody"]["required"] for post in posts)


def _refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for member in node:
            yield from _refs(member)


@pytest.mark.django_db
def test_description_and_its_page_are_open_and_load_nothing_from_elsewhere() -> None:
    assert Client().get("/api/v1/schema/").status_code == 200
    response = Client().get("/api/v1/docs/")
    assert response.status_code == 200
    assert "//cdn" not in response.content.decode() and "https://" not in response.content.decode()
    with closing(Client().get("/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js")) as script:
        assert script.status_code == 200


@pytest.mark.django_db
def test_bad_token_does_not_close_the_page() -> None:
    assert Client(headers={"Authorization": "Bearer wrong"}).get("/api/v1/docs/").status_code == 200


def test_verbs_that_change_something_take_an_idempotency_key() -> None:
    described = schema()["paths"]
    taking = {
        (path, verb)
        for path, verbs in described.items()
        for verb, operation in verbs.items()
        if "Idempotency-Key" in parameters(operation)
    }
    reading = {"/api/v1/memories/query", "/api/v1/memories/get", f"{MEM0}/v3/memories/", f"{MEM0}/v3/memories/search/"}
    changing = {(path, verb) for path, verbs in described.items() for verb in verbs if verb != "get"}
    assert taking == {(path, verb) for path, verb in changing if path not in reading}
    for path, verb in taking:
        assert {"409", "422"} <= set(described[path][verb]["responses"])
