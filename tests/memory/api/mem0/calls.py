"""Calls as mem0's client sends them, through Django's test client."""

from typing import Any

from django.test import Client

ADDRESS = "/api/mem0"


def mem0_client(secret: str | None, scheme: str = "Token", **headers: str) -> Client:
    """A client that sends a token, as mem0's does."""
    given = {} if secret is None else {"Authorization": f"{scheme} {secret}"}
    return Client(headers={**given, **headers}, raise_request_exception=False)


def call(client: Client, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """The response to one call under /api/mem0."""
    content: dict[str, Any] = {} if body is None else {"data": body, "content_type": "application/json"}
    return getattr(client, method)(f"{ADDRESS}{path}", headers=headers, **content)


def add(client: Client, content: str = "Alice likes peonies.", **fields: Any) -> list[dict[str, Any]]:
    """Store one message; returns what was stored."""
    response = call(client, "post", "/v3/memories/add/", {"messages": [{"role": "user", "content": content}], **fields})
    assert response.status_code == 200, response.content
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def listed(client: Client, **body: Any) -> list[dict[str, Any]]:
    """The first page of a list."""
    response = call(client, "post", "/v3/memories/", body)
    assert response.status_code == 200, response.content
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def fields_of(response: Any) -> list[str]:
    """The fields that a problem names."""
    return [each["field"] for each in response.json().get("errors", [])]
