"""What a token may do, at every door."""

import re
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from memory.access.scopes import ALL
from memory.access.tokens import AccessToken
from tests.factories import api_client, make_user

pytestmark = pytest.mark.django_db(transaction=True)
API = "/api/v1/"
ID = "018f0000-0000-7000-8000-000000000000"
CALLS = {
    "read": [
        ("get", "memories", None),
        ("get", f"memories/{ID}", None),
        ("get", "documents/a", None),
        ("get", "export", None),
        ("get", f"operations/{ID}", None),
        ("post", "memories/get", {"ids": [ID]}),
        ("post", "memories/query", {"query": "what?"}),
    ],
    "write": [
        ("post", "memories/index", {"doc_id": "a", "text": "one"}),
        ("post", "memories/index?wait=false", {"doc_id": "a", "text": "one"}),
        ("patch", f"memories/{ID}", {"metadata": {"a": 1}}),
        ("patch", "documents/a", {"metadata": {"a": 1}}),
    ],
    "erase": [
        ("post", "memories/delete", {"ids": [ID]}),
        ("delete", f"memories/{ID}", None),
        ("delete", "documents/a", None),
        ("delete", "memories", None),
    ],
}
TOOLS = {
    "read": ["search_memories", "get_memories", "get_memory", "search", "fetch"],
    "write": ["add_memory", "update_memory"],
    "erase": ["delete_memory", "delete_all_memories"],
}


def client_with(*scopes: str) -> Client:
    secret = AccessToken.objects.issue(user=make_user("-".join(scopes)), scopes=scopes)[1]
    return api_client(secret)


def status(client: Client, method: str, path: str, body: Any) -> int:
    return int(getattr(client, method)(f"{API}{path}", body, content_type="application/json").status_code)


@pytest.mark.parametrize("scope", ALL)
def test_a_token_does_what_its_scope_names_and_nothing_else(scope: str) -> None:
    client = client_with(scope)
    for needed, calls in CALLS.items():
        for method, path, body in calls:
            found = status(client, method, path, body)
            assert (found == 403) == (needed != scope), (scope, method, path, found)


MEM0 = {
    "read": [("get", "v1/ping/", None),
             ("post", "v3/memories/search/", {"query": "what?", "filters": {"user_id": "*"}}),
             ("post", "v3/memories/", {"filters": {"user_id": "*"}}), ("get", f"v1/memories/{ID}/", None)],
    "write": [("post", "v3/memories/add/", {"messages": "one"}), ("put", f"v1/memories/{ID}/", {"text": "two"}),
              ("put", "v1/batch/", {"memories": [{"memory_id": ID, "text": "two"}]})],
    "erase": [("delete", f"v1/memories/{ID}/", None), ("delete", "v1/batch/", {"memory_ids": [ID]}),
              ("delete", "v1/memories/?user_id=*", None), ("delete", "v2/entities/user/alice/", None)],
}  # fmt: skip


@pytest.mark.parametrize("scope", ALL)
def test_the_door_of_mem0_asks_for_the_same_scopes(scope: str) -> None:
    client = client_with(scope)
    for needed, calls in MEM0.items():
        for method, path, body in calls:
            answer = getattr(client, method)(f"/api/mem0/{path}", body, content_type="application/json")
            lacks = "lacks the scope" in answer.content.decode()
            assert lacks == (needed != scope), (scope, method, path, answer.content)


def test_a_refusal_names_the_scope() -> None:
    answer = client_with("read").delete(f"{API}memories")
    assert answer.json()["detail"] == "This token may not erase: it lacks the scope of that name."
    assert 'error="insufficient_scope"' in answer["WWW-Authenticate"]


@pytest.mark.parametrize("scope", ALL)
def test_tools_of_an_agent_ask_for_the_same_scopes(scope: str) -> None:
    client = client_with(scope)
    for needed, tools in TOOLS.items():
        for tool in tools:
            call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
            text = client.post("/api/mcp", call, content_type="application/json").content.decode()
            assert ("lacks the scope" in text) == (needed != scope), (scope, tool, text)


def test_no_tool_is_forgotten() -> None:
    from memory.api.mcp.tools import TOOLS as every

    assert sorted(every) == sorted(tool for tools in TOOLS.values() for tool in tools)


def test_no_view_of_the_api_does_without_the_question() -> None:
    """A view that replaces the default permissions would answer any token."""
    views = dict(_api_views(get_resolver()))
    assert len(views) > 9
    asked = {name: [each.__name__ for each in view.permission_classes] for name, view in views.items()}
    public = {name for name in asked if "schema" in name or "docs" in name}
    assert {name for name, classes in asked.items() if "HasScope" not in classes} == public


def _api_views(resolver: Any, begin: str = "") -> Any:
    for each in resolver.url_patterns:
        path = begin + str(each.pattern)
        if isinstance(each, URLResolver):
            yield from _api_views(each, path)
        elif isinstance(each, URLPattern) and path.startswith("api/") and hasattr(each.callback, "cls"):
            yield path, each.callback.cls


def test_a_token_may_do_everything_unless_its_maker_says_otherwise() -> None:
    out = StringIO()
    call_command("create_token", "--user", "alice", stdout=out, stderr=StringIO())
    assert AccessToken.objects.get().scopes == ALL
    call_command("create_token", "--user", "bob", "--scope", "write", "--scope", "read", stdout=out, stderr=StringIO())
    assert AccessToken.objects.get(user__username="bob").scopes == ["read", "write"]
    with pytest.raises(CommandError):
        call_command("create_token", "--user", "eve", "--scope", "everything")
    with pytest.raises(ValueError, match="Scopes are some of"):
        AccessToken.objects.issue(user=make_user("eve"), scopes=["everything"])


def test_a_session_has_every_scope() -> None:
    client = Client()
    client.force_login(make_user("person"), backend="django.contrib.auth.backends.ModelBackend")
    assert client.delete(f"{API}memories").status_code == 200


def test_the_list_of_tokens_shows_service_scopes_and_last_use() -> None:
    from tests.factories import make_service

    api_client(make_service("acme"), user="alice").get(f"{API}memories")
    client = Client()
    root = make_user("root", is_staff=True, is_superuser=True)
    client.force_login(root, backend="django.contrib.auth.backends.ModelBackend")
    form = {"user": root.pk, "label": "reader", "scopes": ["read"], "days": "30"}
    client.post("/admin/memory/accesstoken/add/", form)
    assert AccessToken.objects.get(label="reader").scopes == ["read"]
    text = client.get("/admin/memory/accesstoken/").content.decode()
    assert "service acme" in text and "read, write, erase, act for users" in text
    services = client.get("/admin/memory/serviceaccount/").content.decode()
    (address,) = re.findall(r'href="(/admin/memory/accesstoken/[?][^"]+)">1</a>', services)
    assert "reader" not in client.get(address).content.decode()
