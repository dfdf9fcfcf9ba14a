"""Who may call, and whose memory a call reaches."""

from datetime import timedelta

import pytest
from django.test import Client

from memory.access.tokens import AccessToken
from tests.factories import API, api_client, index, make_service, make_token, make_user, person_client

pytestmark = pytest.mark.django_db
MEMORIES = f"{API}/memories"


def texts(client: Client) -> list[str]:
    response = client.get(MEMORIES)
    assert response.status_code == 200, response.content
    return [memory["text"] for memory in response.json()["memories"]]


def test_no_credential_is_401_with_a_challenge() -> None:
    response = api_client().get(MEMORIES)
    assert response.status_code == 401
    assert response["WWW-Authenticate"].startswith("Bearer")
    assert response["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer ",
        "Bearer smem_",
        "Bearer smem_" + "0" * 64,
        "Bearer smem_" + "0" * 64 + " more",
        "Bearer smem_\xff\xfe",
        "Bearer \x00",
        "Bearer " + "x" * 5000,
        "Token abc",
        "Basic YWxpY2U6cHc=",
        "smem_x",
    ],
)
def test_malformed_authorization_is_401(authorization: str) -> None:
    response = Client(headers={"Authorization": authorization}).get(MEMORIES)
    assert response.status_code == 401
    assert response.json()["type"] == "urn:sealed-memory:unauthenticated"


def test_truncated_expired_and_revoked_tokens_are_401_alike() -> None:
    user = make_user()
    revoked = make_token(user)
    AccessToken.objects.get().revoke()
    secrets = [make_token(user)[:-1], make_token(user, expires_in=timedelta(seconds=-1)), revoked]
    answers = [api_client(secret).get(MEMORIES) for secret in secrets]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1


def test_token_of_a_deactivated_account_is_401() -> None:
    user = make_user()
    client = api_client(make_token(user))
    assert client.get(MEMORIES).status_code == 200
    user.is_active = False
    user.save()
    assert client.get(MEMORIES).status_code == 401


def test_bad_token_is_an_error_even_beside_a_good_session() -> None:
    client = Client(headers={"Authorization": "Bearer smem_wrong"})
    client.force_login(make_user(), backend="django.contrib.auth.backends.ModelBackend")
    assert client.get(MEMORIES).status_code == 401


def test_person_reaches_own_memory_and_nobody_elses() -> None:
    alice, bob = person_client("alice"), person_client("bob")
    index(alice, "alice's secret")
    assert texts(alice) == ["alice's secret"]
    assert texts(bob) == []


def test_person_naming_a_user_is_403_naming_the_header() -> None:
    secret = make_token(make_user())
    response = api_client(secret, user="bob").get(MEMORIES)
    assert response.status_code == 403
    assert response.json()["errors"][0]["field"] == "X-Memory-User"


def test_service_without_the_permission_naming_a_user_is_403() -> None:
    secret = make_service(acts_for_users=False)
    assert api_client(secret, user="bob").get(MEMORIES).status_code == 403
    assert api_client(secret).get(MEMORIES).status_code == 200


def test_service_with_the_permission_that_names_nobody_is_400_naming_the_header() -> None:
    response = api_client(make_service()).get(MEMORIES)
    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] == "X-Memory-User"


def test_service_reaches_the_user_it_names() -> None:
    secret = make_service()
    index(api_client(secret, user="bob"), "bob's secret")
    assert texts(api_client(secret, user="bob")) == ["bob's secret"]
    assert texts(api_client(secret, user="Bob")) == []
    assert texts(api_client(secret, user="bob b")) == []


def test_services_never_share_a_user_nor_meet_a_person() -> None:
    person = make_user()
    acme, umbrella = make_service("acme"), make_service("umbrella")
    index(api_client(acme, user="alice"), "acme's alice")
    assert texts(api_client(umbrella, user="alice")) == []
    assert texts(api_client(acme, user=str(person.pk))) == []
    assert texts(api_client(acme, user=f"person:{person.pk}")) == []
    assert texts(api_client(make_token(person))) == []


def test_user_header_takes_utf8() -> None:
    secret = make_service()
    index(api_client(secret, user="Žofie 張"), "hers")
    assert texts(api_client(secret, user="Žofie 張")) == ["hers"]


@pytest.mark.parametrize(
    "header", ["", " bob", "bob\xc2\xa0", "\xff", "a\tb", "a\x7fb", "x" * 243, "\xed\xa0\x80", "a\x00b"]
)
def test_unusable_user_header_is_400_naming_the_header(header: str) -> None:
    client = Client(headers={"Authorization": f"Bearer {make_service()}", "X-Memory-User": header})
    response = client.get(MEMORIES)
    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] == "X-Memory-User"


def test_session_reads_without_and_writes_only_with_its_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user(), backend="django.contrib.auth.backends.ModelBackend")
    assert client.get(MEMORIES).status_code == 200
    refused = client.delete(MEMORIES)
    assert refused.status_code == 403
    assert refused["Content-Type"] == "application/problem+json"
    client.cookies["csrftoken"] = "a" * 32
    assert client.delete(MEMORIES, headers={"X-CSRFToken": "a" * 32}).status_code == 200


def test_token_needs_no_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {make_token(make_user())}"})
    assert client.delete(MEMORIES).status_code == 200


def test_use_of_a_token_is_noted() -> None:
    secret = make_token(make_user())
    api_client(secret).get(MEMORIES)
    assert AccessToken.objects.get().last_used_at is not None


def test_tenant_is_unbound_after_the_request() -> None:
    from memory.exceptions import TenantNotBound
    from memory.rls import current_user_id

    person_client().get(MEMORIES)
    with pytest.raises(TenantNotBound):
        current_user_id()
