"""The nonce budget of a key."""

import psycopg
import pytest
from django.db import transaction

from keys import nonces
from keys.checks import check_nonce_budget
from keys.exceptions import NonceBudgetSpent, NonceBudgetUnknown
from keys.keyring import get_keyring
from keys.models import KeyRecord
from memory.security import open_sealed, seal

KEY = "0badf00d"
prepay = nonces.prepay
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def database_away(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Payments fail while the list is empty of the word that the database is back."""
    asked: list[int] = []

    def fail(key_id: str, seals: int) -> bool:
        asked.append(seals)
        raise psycopg.OperationalError("away")

    monkeypatch.setattr(nonces, "prepay", fail)
    return asked


def paid(key_id: str = KEY) -> int:
    return KeyRecord.objects.get(key_id=key_id).seals


def test_a_seal_is_paid_before_it_is_made() -> None:
    opened = open_sealed(seal(b"text"))
    assert opened == b"text"
    assert paid(get_keyring().sealing.key_id) == nonces.FIRST_BLOCK


def test_blocks_double_so_that_short_processes_cost_little() -> None:
    for _ in range(nonces.FIRST_BLOCK):
        nonces.spend(KEY)
    assert paid() == nonces.FIRST_BLOCK
    nonces.spend(KEY)
    assert paid() == nonces.FIRST_BLOCK * 3


def test_no_block_is_larger_than_the_margin_before_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces, "LARGEST_BLOCK", nonces.FIRST_BLOCK)
    for _ in range(2 * nonces.FIRST_BLOCK + 1):
        nonces.spend(KEY)
    assert paid() == 3 * nonces.FIRST_BLOCK
    assert nonces.REFUSE_AT + 2**20 <= 2**32


def test_a_rollback_does_not_take_the_payment_back() -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        nonces.spend(KEY)
        raise RuntimeError
    assert paid() == nonces.FIRST_BLOCK


def test_a_spent_key_refuses_and_names_the_command() -> None:
    KeyRecord.objects.create(key_id=KEY, purpose="encryption", seals=nonces.REFUSE_AT - 1)
    for _ in range(3):
        with pytest.raises(NonceBudgetSpent, match="rotate_encryption_key"):
            nonces.spend(KEY)
    assert paid() == nonces.REFUSE_AT - 1


def test_the_last_block_is_still_sold() -> None:
    KeyRecord.objects.create(key_id=KEY, purpose="encryption", seals=nonces.REFUSE_AT - nonces.FIRST_BLOCK)
    for _ in range(nonces.FIRST_BLOCK):
        nonces.spend(KEY)
    assert paid() == nonces.REFUSE_AT
    with pytest.raises(NonceBudgetSpent):
        nonces.spend(KEY)


def test_without_a_database_seals_are_made_on_credit_and_paid_later(
    monkeypatch: pytest.MonkeyPatch, database_away: list[int]
) -> None:
    for _ in range(3 * nonces.CREDIT_STEP):
        nonces.spend(KEY)
    # Asked once: the pauses between attempts are counted in seconds.
    assert len(database_away) == 1
    monkeypatch.setattr(nonces, "prepay", prepay)
    monkeypatch.setattr(nonces, "RETRY_SECONDS", 0.0)
    nonces.spend(KEY)
    assert paid() == nonces.FIRST_BLOCK + 3 * nonces.CREDIT_STEP


def test_credit_ends(database_away: list[int]) -> None:
    for _ in range(nonces.CREDIT):
        nonces.spend(KEY)
    for _ in range(2):
        with pytest.raises(NonceBudgetUnknown):
            nonces.spend(KEY)


def test_a_forked_child_buys_its_own() -> None:
    nonces.spend(KEY)
    nonces.forget()
    nonces.spend(KEY)
    assert paid() == 2 * nonces.FIRST_BLOCK


def test_a_row_that_somebody_holds_does_not_hold_up_a_seal() -> None:
    KeyRecord.objects.create(key_id=KEY, purpose="encryption")
    with transaction.atomic():
        KeyRecord.objects.filter(key_id=KEY).update(seals=1)
        nonces.spend(KEY)  # waits a second for the row, then lends
    assert paid() == 1


def test_sealing_again_under_a_retired_key_calls_it_back() -> None:
    KeyRecord.objects.create(key_id=KEY, purpose="encryption", retired_at="2026-01-01T00:00:00Z")
    nonces.spend(KEY)
    assert KeyRecord.objects.get(key_id=KEY).retired_at is None


def test_the_system_check_warns_at_half_the_budget() -> None:
    key_id = get_keyring().sealing.key_id
    KeyRecord.objects.create(key_id=key_id, purpose="encryption", seals=nonces.WARN_AT - 1)
    assert check_nonce_budget(databases=["default"]) == []
    KeyRecord.objects.update(seals=nonces.WARN_AT)
    (warning,) = check_nonce_budget(databases=["default"])
    assert (warning.id, key_id in warning.msg) == ("keys.W001", True)
    assert check_nonce_budget() == []
