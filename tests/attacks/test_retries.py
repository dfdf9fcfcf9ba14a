"""A short run of `tests.attacks.retries`: every request is answered in the end, and has had one effect."""

from collections import Counter

import pytest

from tests.attacks import retries
from tests.attacks.retries import Account, Kept, Target, broken_promises, run
from tests.factories import make_service
from tests.serving import serving

pytestmark = pytest.mark.django_db(transaction=True)


def test_requests_that_are_sent_again_have_one_effect() -> None:
    token = make_service()
    with serving(**retries.SETTINGS) as server:
        result = run(Target(server.port, server.process.pid, token), requests=200, seed=7, kill_after=(25, 50))
    assert result["broken"] == []
    assert result["requests"] == 200 and result["workers_killed"] and result["documents"]
    doors = Counter(door for act in result["answered"] for door in [act.split()[0]])
    assert doors.keys() == {"json", "mcp", "client", "mem0"}


def test_a_broken_promise_is_told() -> None:
    token = make_service()
    with serving(**retries.SETTINGS) as server:
        target = Target(server.port, server.process.pid, token)
        account = Account("user0")
        door = retries.JSONDoor(target, account)
        twice = [door.store("user0 said 1") for _ in range(2)]
        foreign = door.store("user1 said 2")
        account.there = {
            "user0 said 1": Kept("user0 said 1", twice[0], "json"),
            "user0 said 3": Kept("user0 said 3", "lost", "json"),
            "user1 said 2": Kept("user1 said 2", foreign, "json", seen=9),
        }
        told = broken_promises(account, target)
        door.close()
    assert {each.rpartition(" user")[0] for each in told} == {
        *("foreign:", "2 times", "0 times", "another id or metadata:")
    }
