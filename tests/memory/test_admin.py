import re
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client

from memory.access.tokens import AccessToken, ServiceAccount
from memory.models import MemoryChunk, MemoryVector, Tenant
from tests.factories import make_token, make_user

pytestmark = pytest.mark.django_db
TOKENS = "/admin/memory/accesstoken/"


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(
        make_user("root", is_staff=True, is_superuser=True), backend="django.contrib.auth.backends.ModelBackend"
    )
    return client


def page(response: Any) -> str:
    assert response.status_code == 200
    return response.content.decode()


def test_new_token_is_shown_exactly_once_and_works(client: Client) -> None:
    user = make_user()
    form = {"user": user.pk, "label": "laptop", "scopes": ["read", "erase"], "days": "30"}
    first = page(client.post(f"{TOKENS}add/", form, follow=True))
    (secret,) = set(re.findall(r"smem_[0-9a-f]{64}", first))
    token = AccessToken.objects.find(secret)
    assert token and token.user == user and token.label == "laptop"
    assert token.expiry is not None and (token.expiry - token.created).days in (29, 30)
    for path in (TOKENS, f"{TOKENS}{token.pk}/change/", f"{TOKENS}{token.pk}/history/", "/admin/"):
        again = page(client.get(path))
        assert secret not in again and token.digest not in again


def test_token_for_ever_and_token_for_nobody(client: Client) -> None:
    client.post(f"{TOKENS}add/", {"user": make_user().pk, "label": "", "scopes": ["read"], "days": "0"})
    assert AccessToken.objects.get().expiry is None
    client.post(f"{TOKENS}add/", {"label": "", "scopes": ["read"], "days": "0"})
    client.post(f"{TOKENS}add/", {"user": make_user("bob").pk, "label": "", "days": "0"})
    client.post(f"{TOKENS}add/", {"user": "999", "label": "", "days": "-1"})
    assert AccessToken.objects.count() == 1


def test_list_shows_prefix_and_state_and_filters_by_it(client: Client) -> None:
    secret = make_token(make_user())
    AccessToken.objects.get().revoke()
    make_token(make_user("bob"))
    text = page(client.get(f"{TOKENS}?state=revoked"))
    assert f"{secret[:15]}…" in text and "bob" not in text
    assert "bob" in page(client.get(f"{TOKENS}?state=active"))
    assert "bob" not in page(client.get(f"{TOKENS}?state=expired"))


def test_revoking_selected_tokens(client: Client) -> None:
    secret = make_token(make_user())
    token = AccessToken.objects.get()
    page(client.post(TOKENS, {"action": "revoke", "_selected_action": [token.pk]}, follow=True))
    assert AccessToken.objects.find(secret) is None
    assert AccessToken.objects.get().state == "revoked"


def test_owner_and_expiry_of_a_token_are_fixed(client: Client) -> None:
    make_token(make_user())
    token = AccessToken.objects.get()
    client.post(f"{TOKENS}{token.pk}/change/", {"label": "new", "user": make_user("bob").pk, "expiry_0": "2099-01-01"})
    changed = AccessToken.objects.get()
    assert (changed.label, changed.user, changed.expiry) == ("new", token.user, token.expiry)


def test_a_service_is_neither_deleted_nor_given_another_account(client: Client) -> None:
    service = ServiceAccount.objects.create(user=make_user(), namespace="acme")
    assert client.post(f"/admin/memory/serviceaccount/{service.pk}/delete/", {"post": "yes"}).status_code == 403
    client.post(f"/admin/memory/serviceaccount/{service.pk}/change/", {"user": make_user("other").pk})
    assert ServiceAccount.objects.get().user == service.user


def test_namespace_of_a_service_is_fixed(client: Client) -> None:
    service = ServiceAccount.objects.create(user=make_user(), namespace="acme")
    client.post(f"/admin/memory/serviceaccount/{service.pk}/change/", {"namespace": "other", "user": service.user_id})
    assert ServiceAccount.objects.get().namespace == "acme"


def test_a_service_is_given_a_budget_and_what_is_none_is_refused(client: Client) -> None:
    service = ServiceAccount.objects.create(user=make_user(), namespace="acme")
    address = f"/admin/memory/serviceaccount/{service.pk}/change/"
    client.post(address, {"rate": "20000/min"})
    assert ServiceAccount.objects.get().rate == "20000/min"
    assert "A rate is a number" in page(client.post(address, {"rate": "often"}))
    assert ServiceAccount.objects.get().rate == "20000/min"


@pytest.mark.parametrize(
    "path", ["auth/user/", "auth/group/", "axes/accessattempt/", "memory/serviceaccount/", "memory/serviceaccount/add/"]
)
def test_pages_open(client: Client, path: str) -> None:
    assert "Sealed Memory" in page(client.get(f"/admin/{path}"))


def test_no_page_opens_a_seal() -> None:
    assert not [model for model in (MemoryChunk, MemoryVector, Tenant) if admin.site.is_registered(model)]


def test_person_who_is_not_staff_sees_nothing() -> None:
    client = Client()
    client.force_login(make_user(), backend="django.contrib.auth.backends.ModelBackend")
    assert client.get(TOKENS).status_code == 302
