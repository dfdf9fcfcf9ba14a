from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from memory.access.tokens import AccessToken, ServiceAccount
from tests.factories import make_token, make_user

pytestmark = pytest.mark.django_db


def test_secret_carries_the_prefix_that_scanners_know_and_256_bits() -> None:
    secret = make_token(make_user())
    assert secret.startswith("smem_")
    assert len(bytes.fromhex(secret.removeprefix("smem_"))) == 32


def test_secret_stands_nowhere_in_the_table_nor_in_reprs() -> None:
    secret = make_token(make_user())
    token = AccessToken.objects.get()
    with connection.cursor() as cursor:
        cursor.execute("SELECT t::text FROM memory_accesstoken t")
        (row,) = cursor.fetchone()
    assert secret not in row
    assert secret not in repr(token) + str(token)
    assert token.digest not in repr(token) + str(token)
    assert token.token_key == secret[:15]


def test_usable_token_is_found_with_its_account_in_one_query() -> None:
    secret = make_token(make_user())
    with CaptureQueriesContext(connection) as queries:
        token = AccessToken.objects.find(secret)
        assert token and token.user.username == "alice"
        assert not hasattr(token.user, "service_account")
    assert len(queries) == 0  # behind the one that finds it, which goes round Django's cursors


@pytest.mark.parametrize("service", [False, True])
def test_the_statement_finds_what_the_orm_would(service: bool) -> None:
    account = make_user()
    secret = make_token(account, expires_in=timedelta(days=1))
    if service:
        ServiceAccount.objects.create(user=account, namespace="acme")
    found, expected = AccessToken.objects.find(secret), AccessToken.objects.usable().get()
    assert found is not None
    pairs = [(found, expected), (found.user, expected.user)]
    pairs += [(found.user.service_account, expected.user.service_account)] if service else []
    for ours, theirs in pairs:
        names = [field.attname for field in theirs._meta.concrete_fields]
        assert type(ours) is type(theirs) and not ours.get_deferred_fields()
        assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]


@pytest.mark.parametrize(
    "mangle", [lambda s: s[:-1], lambda s: s + "0", lambda s: s[5:], lambda s: s.upper(), lambda s: ""]
)
def test_any_other_secret_finds_nothing(mangle: object) -> None:
    secret = make_token(make_user())
    assert AccessToken.objects.find(mangle(secret)) is None  # type: ignore[operator]


def test_expired_token_finds_nothing_and_stays_listed() -> None:
    secret = make_token(make_user(), expires_in=timedelta(seconds=-1))
    assert AccessToken.objects.find(secret) is None
    assert AccessToken.objects.get().state == "expired"


def test_revoked_token_finds_nothing_and_stays_listed() -> None:
    secret = make_token(make_user())
    token = AccessToken.objects.get()
    token.revoke()
    first = token.revoked_at
    token.revoke()
    assert AccessToken.objects.find(secret) is None
    assert token.state == "revoked" and token.revoked_at == first


def test_token_of_an_inactive_account_finds_nothing() -> None:
    assert AccessToken.objects.find(make_token(make_user(is_active=False))) is None


def test_token_without_expiry_lives_on() -> None:
    secret = make_token(make_user(), expires_in=None)
    token = AccessToken.objects.find(secret)
    assert token and token.state == "active" and token.expiry is None


def test_last_use_is_written_at_most_once_a_minute() -> None:
    secret = make_token(make_user())
    AccessToken.objects.find(secret).note_use()  # type: ignore[union-attr]
    token = AccessToken.objects.get()
    first = token.last_used_at
    assert first is not None
    token.note_use()
    token.refresh_from_db()
    assert token.last_used_at == first
    token.last_used_at = timezone.now() - timedelta(seconds=61)
    token.note_use()
    token.refresh_from_db()
    assert token.last_used_at > first


def test_account_that_holds_tokens_or_has_logged_in_does_not_become_a_services() -> None:
    with_token, logged_in = make_user("a"), make_user("b", last_login=timezone.now())
    make_token(with_token)
    for person in (with_token, logged_in):
        with pytest.raises(ValidationError, match="a person's"):
            ServiceAccount(user=person, namespace="acme").full_clean()


def test_a_service_outlives_its_account_and_keeps_its_namespace() -> None:
    service = ServiceAccount.objects.create(user=make_user(), namespace="acme")
    service.user.delete()
    service.refresh_from_db()
    assert service.user is None and not service.may_act_for_users
    with pytest.raises(DatabaseError, match="permission denied"), transaction.atomic():
        ServiceAccount.objects.all().delete()
    with pytest.raises(ValidationError, match="already exists"):
        ServiceAccount(user=make_user("next"), namespace="acme").full_clean()


def test_service_account_of_staff_is_refused() -> None:
    with pytest.raises(ValidationError):
        ServiceAccount(user=make_user(is_staff=True), namespace="acme").full_clean()


def test_superuser_is_no_service_that_acts_for_users() -> None:
    service = ServiceAccount.objects.create(user=make_user(is_superuser=True), namespace="acme")
    assert not service.may_act_for_users
