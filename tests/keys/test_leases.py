"""One process at a time, by a row that expires."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.db.models.functions import Now

from keys.exceptions import LeaseLost, LeaseTaken
from keys.leases import hold, take
from keys.models import Lease

pytestmark = pytest.mark.django_db


def expire(name: str) -> None:
    Lease.objects.filter(name=name).update(expires_at=Now() - timedelta(seconds=1))


def test_a_lease_is_given_back_at_the_end() -> None:
    with hold("work"):
        assert Lease.objects.get().name == "work"
    assert not Lease.objects.exists()


def test_another_holder_waits_until_the_lease_ends() -> None:
    assert take("work", "somebody else", 30)
    with pytest.raises(LeaseTaken, match="somebody else holds the lease 'work'"), hold("work"):
        pytest.fail("The lease was given out twice.")
    with hold("other work"):
        pass


def test_an_expired_lease_is_taken_over_and_its_late_holder_learns_of_it() -> None:
    with hold("work") as lease:
        expire("work")
        assert take("work", "somebody else", 30)
        with pytest.raises(LeaseLost):
            lease.renew()
    # Leaving gave back nothing: it was no longer ours.
    assert Lease.objects.get().holder == "somebody else"


def test_renewing_moves_the_end() -> None:
    with hold("work") as lease:
        expire("work")
        lease.renew()
        assert Lease.objects.filter(name="work", expires_at__gt=Now() + timedelta(seconds=20)).exists()


@pytest.mark.django_db(transaction=True)
def test_a_lease_inside_a_transaction_is_refused() -> None:
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic(), hold("work"):
        pytest.fail("A lease that nobody can see was taken.")
