import pytest

from memory.access.identity import Identity, person_user_id, service_user_id
from memory.exceptions import InvalidUserId


def test_canonical_ids_of_persons_and_services_never_meet() -> None:
    assert person_user_id(5) == "person:5"
    assert service_user_id("acme", "5") == "service:acme:5"
    assert service_user_id("acme", "person:5") != person_user_id(5)


def test_two_services_never_share_a_user() -> None:
    assert service_user_id("acme", "alice") != service_user_id("umbrella", "alice")


def test_external_id_keeps_its_exact_utf8_without_normalisation() -> None:
    assert service_user_id("acme", "e\u0301") != service_user_id("acme", "\u00e9")
    assert service_user_id("acme", "Alice A.") == "service:acme:Alice A."


@pytest.mark.parametrize("external_id", ["", "a" * 243, "é" * 122, "a\0b", "\ud800", "a\nb", "a\x85b"])
def test_external_id_that_makes_no_user_id_is_refused(external_id: str) -> None:
    with pytest.raises(InvalidUserId) as refused:
        service_user_id("acme", external_id)
    assert not external_id or external_id not in str(refused.value)


@pytest.mark.parametrize("external_id", ["victim ", " victim", "victim\t", "victim\u00a0", "\u3000victim", " "])
def test_external_id_that_a_header_would_not_carry_whole_is_refused(external_id: str) -> None:
    """HTTP servers cut outer white space off a header: "victim " would read as "victim"."""
    with pytest.raises(InvalidUserId, match="white space"):
        service_user_id("acme", external_id)


def test_user_id_may_be_255_bytes_long() -> None:
    assert len(service_user_id("acme", "a" * 242).encode()) == 255


def test_identity_shows_neither_user_id_nor_token() -> None:
    class Account:
        pk = 7

    assert repr(Identity(user_id="service:acme:alice", account=Account(), token="secret")) == "<Identity of account 7>"
