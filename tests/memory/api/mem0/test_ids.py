"""Ids given to services: they carry the user, for this service alone."""

import threading
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client

from memory.sealing.handles import InvalidHandle, open_handle, seal_handle
from tests.factories import make_service, make_token, make_user, stored_texts
from tests.memory.api.mem0.calls import add, call, listed, mem0_client

pytestmark = pytest.mark.django_db


def statuses(client: Client, memory_id: str) -> list[int]:
    """Of every call by id."""
    path = f"/v1/memories/{memory_id}/"
    calls = [("get", None), ("put", {"text": "changed"}), ("delete", None)]
    answers = [call(client, method, path, body) for method, body in calls]
    answers.append(call(client, "delete", "/v1/batch/", {"memories": [{"memory_id": memory_id}]}))
    answers.append(call(client, "put", "/v1/batch/", {"memories": [{"memory_id": memory_id, "text": "changed"}]}))
    answers.append(call(client, "get", f"/v1/event/{memory_id}/"))
    return [each.status_code for each in answers]


def test_an_id_that_is_not_this_callers_is_one_of_nothing() -> None:
    ours, theirs = mem0_client(make_service("ours")), mem0_client(make_service("theirs"))
    person = mem0_client(make_token(make_user()))
    (mine,) = add(ours, "ours", user_id="alice")
    (foreign,) = add(theirs, "theirs", user_id="alice")
    (private,) = add(person, "private")
    for client, given in (
        (ours, foreign["id"]), (theirs, mine["id"]), (person, mine["id"]), (ours, private["id"]),
    ):  # fmt: skip
        assert statuses(client, given) == [404] * 6
    cut, flipped = mine["id"][:-1], mine["id"][:-1] + ("A" if mine["id"][-1] != "A" else "B")
    forged = seal_handle(uuid.uuid4(), name="alice", kind="memory", namespace="ours")
    for given in (cut, flipped, f"{mine['id']}=", mine["id"].lower(), "x", "x" * 600, str(uuid.uuid4()), "é", forged):
        assert statuses(ours, given) == [404] * 6
    assert stored_texts("service:ours:alice") == ["ours"] and stored_texts("service:theirs:alice") == ["theirs"]
    assert listed(person)[0]["memory"] == "private"


def test_an_id_of_one_kind_is_none_of_another() -> None:
    client = mem0_client(make_service())
    answer = call(client, "post", "/v3/memories/add/", {"messages": [{"content": "x"}], "user_id": "alice"}).json()
    assert call(client, "get", f"/v1/memories/{answer['event_id']}/").status_code == 404
    assert call(client, "get", f"/v1/event/{answer['results'][0]['id']}/").status_code == 404


def test_an_id_is_the_same_each_time_and_tells_no_name() -> None:
    client = mem0_client(make_service())
    (stored,) = add(client, "x", user_id="a-telling-name")
    (again,) = listed(client, user_id="a-telling-name")
    assert stored["id"] == again["id"] and "telling" not in stored["id"]
    (other,) = add(client, "x", user_id="another")
    assert len(other["id"]) == len(stored["id"])  # short names have one length


def test_a_service_that_may_no_longer_name_users_reaches_none_of_them() -> None:
    secret = make_service("acme")
    client = mem0_client(secret)
    (stored,) = add(client, "x", user_id="alice")
    User.objects.get(username="service-acme").user_permissions.clear()
    assert statuses(client, stored["id"]) == [404] * 6
    assert call(client, "post", "/v3/memories/", {"user_id": "alice"}).status_code == 403


def test_a_former_secret_key_opens_and_another_does_not(settings: Any) -> None:
    row = uuid.uuid4()
    handle = seal_handle(row, name="alice", kind="memory", namespace="acme")
    former, settings.SECRET_KEY = settings.SECRET_KEY, "y" * 50
    with pytest.raises(InvalidHandle):
        open_handle(handle, kind="memory", namespace="acme")
    settings.SECRET_KEY_FALLBACKS = [former]
    assert open_handle(handle, kind="memory", namespace="acme") == ("alice", row)


def test_no_character_of_a_handle_can_be_another() -> None:
    handle = seal_handle(uuid.uuid4(), name="alice", kind="memory", namespace="acme")
    for place, character in enumerate(handle):
        for other in "AZaz09-_":
            if other != character:
                with pytest.raises(InvalidHandle):
                    open_handle(f"{handle[:place]}{other}{handle[place + 1 :]}", kind="memory", namespace="acme")


@pytest.mark.parametrize("name", ["a", "日本語", "x" * 16, "service:other:42", "ends with nothing", "é" * 120])
def test_names_of_every_shape_come_back(name: str) -> None:
    row = uuid.uuid4()
    assert open_handle(seal_handle(row, name=name, kind="k", namespace="n"), kind="k", namespace="n") == (name, row)
    with pytest.raises(InvalidHandle):
        open_handle(seal_handle(row, name=name, kind="k", namespace="n"), kind="kn", namespace="")


@pytest.mark.django_db(transaction=True)
def test_two_users_behind_one_token_never_meet_in_turns_and_at_once() -> None:
    secret = make_service()
    add(mem0_client(secret), "warm", user_id="warm")
    failures: list[str] = []

    def work(user: str) -> None:
        try:
            client = mem0_client(secret)
            for number in range(8):
                (stored,) = add(client, f"{user} {number}", user_id=user, run_id="shared")
                shown = call(client, "get", f"/v1/memories/{stored['id']}/").json()
                found = call(
                    client, "post", "/v3/memories/search/", {"query": "a", "filters": {"user_id": user}}
                ).json()
                every = [shown, *found["results"], *listed(client, filters={"user_id": user, "run_id": "shared"})]
                failures.extend(each["memory"] for each in every if not each["memory"].startswith(user))
                failures.extend(each["user_id"] for each in every if each["user_id"] != user)
            call(client, "delete", f"/v1/memories/?user_id={user}&run_id=none")
        finally:
            connections.close_all()

    users = ["alice", "bob", "carol"]
    threads = [threading.Thread(target=work, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for user in users:
        assert stored_texts(f"service:acme:{user}") == [f"{user} {number}" for number in range(8)]
