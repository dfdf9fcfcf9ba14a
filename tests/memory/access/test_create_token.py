from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from memory.access.tokens import AccessToken, ServiceAccount
from tests.factories import make_user

pytestmark = pytest.mark.django_db


def create_token(*arguments: str) -> tuple[str, str]:
    """(standard output, standard error) of the command."""
    out, err = StringIO(), StringIO()
    call_command("create_token", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_only_the_secret_is_printed_on_standard_output() -> None:
    make_user()
    out, err = create_token("--user", "alice", "--label", "laptop")
    token = AccessToken.objects.find(out.strip())
    assert token and token.label == "laptop" and token.user.username == "alice"
    assert out.strip() not in err


def test_missing_account_is_made_without_a_password_and_said_so() -> None:
    _, err = create_token("--user", "bob")
    assert not User.objects.get(username="bob").has_usable_password()
    assert "bob" in err


def test_service_gets_its_account_and_the_permission_once_asked_for() -> None:
    create_token("--service", "acme")
    service = ServiceAccount.objects.get(namespace="acme")
    assert not service.may_act_for_users
    create_token("--service", "acme", "--act-for-users")
    assert ServiceAccount.objects.get(namespace="acme").may_act_for_users


def test_a_service_gets_a_budget_of_its_own_and_loses_it() -> None:
    create_token("--service", "acme", "--rate", "20000/min")
    assert ServiceAccount.objects.get().rate == "20000/min"
    create_token("--service", "acme")
    assert ServiceAccount.objects.get().rate == "20000/min"
    create_token("--service", "acme", "--rate", "")
    assert ServiceAccount.objects.get().rate == ""


def test_expiry_is_given_in_days() -> None:
    create_token("--user", "alice", "--expires", "0")
    create_token("--user", "alice", "--expires", "7")
    week, never = AccessToken.objects.order_by("-id")
    assert never.expiry is None
    assert week.expiry is not None and (week.expiry - week.created).days in (6, 7)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--user", "alice", "--act-for-users"),
        ("--user", "alice", "--rate", "9/min"),
        ("--service", "acme", "--rate", "often"),
        ("--service", "acme", "--rate", "01/min"),
        ("--user", "alice", "--expires", "-1"),
        ("--user", "alice", "--expires", "3651"),
        ("--user", "alice", "--expires", "999999999"),
        ("--user", "alice", "--expires", "9" * 30),
        ("--user", "alice", "--expires", "9" * 5000),
        ("--service", "not a slug"),
        ("--service", "acme:corp"),
        ("--user", "bad name!"),
        (),
        ("--user", "alice", "--service", "acme"),
    ],
)
def test_wrong_arguments_make_nothing(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        create_token(*arguments)
    assert not AccessToken.objects.exists() and not User.objects.exists()


def test_inactive_account_gets_no_token() -> None:
    make_user(is_active=False)
    with pytest.raises(CommandError):
        create_token("--user", "alice")


def test_the_namespace_of_the_benchmarks_is_nobodys() -> None:
    with pytest.raises(CommandError, match="benchmark commands"):
        create_token("--service", "benchmark")
    assert not AccessToken.objects.exists()


def test_a_persons_account_does_not_become_a_services() -> None:
    make_user("service-take")
    with pytest.raises(CommandError, match="a person's"):
        create_token("--service", "take")
    assert not ServiceAccount.objects.exists()


def test_a_namespace_is_never_used_twice() -> None:
    create_token("--service", "acme")
    User.objects.get(username="service-acme").delete()
    with pytest.raises(CommandError, match="never used twice"):
        create_token("--service", "acme")
    make_user("service-acme")
    with pytest.raises(CommandError, match="never used twice"):
        create_token("--service", "acme")
