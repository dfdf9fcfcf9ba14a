"""Over HTTP, against the real server: forged cursors, ids, headers and requests never reach another user's rows."""

import base64
import contextlib
import itertools
import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from tests.attacks.tally import tried
from tests.factories import API, make_service, make_token, make_user, vector
from tests.serving import Server, serving

pytestmark = pytest.mark.django_db
HERS = "planted-text-of-the-victim"
VICTIM = "victim"


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("metrics")
    unlimited = {f"MEMORY_THROTTLE_{scope}": "" for scope in ("INDEX", "QUERY", "OTHER", "TOKEN", "FAILED_AUTH")}
    with serving(PROMETHEUS_MULTIPROC_DIR=str(folder), **unlimited) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(server: Server, django_db_blocker: Any) -> Iterator[dict[str, str]]:
    """Of the victim's service, of another service, and of a person; committed once for all tests."""
    with django_db_blocker.unblock():
        yield _tokens(server)
        call_command("flush", verbosity=0, interactive=False)
        connections["default"].close()


def _tokens(server: Server) -> dict[str, str]:
    made = {"acme": make_service("acme"), "other": make_service("other"), "person": make_token(make_user("mallory"))}
    body = {"text": HERS, "doc_id": "her-document", "source": "her-source", "embedding": vector()}
    assert server.ask(f"{API}/memories/index", body, **headers(made["acme"], VICTIM)).status == 200
    assert HERS in listed(server, made["acme"], VICTIM)
    return made


def headers(token: str, user: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} | ({"X-Memory-User": user} if user is not None else {})


def listed(server: Server, token: str, user: str) -> str:
    return server.ask(f"{API}/memories", **headers(token, user)).body.decode()


def raw(server: Server, request: bytes) -> bytes:
    """All that a server answers to these bytes on one connection."""
    with server.connect() as connection:
        connection.sendall(request)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                answer += part
        return answer


def get(token: str, *lines: bytes, target: str = f"{API}/memories") -> bytes:
    head = [f"GET {target} HTTP/1.1".encode(), b"Host: localhost", f"Authorization: Bearer {token}".encode()]
    return b"\r\n".join([*head, *lines, b"Connection: close", b"", b""])


ALIKE = (
    "Victim", "VICTIM", "victim ", " victim", "victim\t", "\tvictim", "victim\u00a0", "victim\u200b", "v\u0131ctim",
    "vict\u0456m", "victim\u0301", "ｖictim", "victim%00", "victim%20", "%76ictim", "victim;", "victim,", "victim,bob",
    "bob,victim", "bob, victim", "victim/", "./victim", "../victim", "a/../victim", "acme:victim", ":victim",
    "service:acme:victim", "other:victim", "acme:victim:", "victim'--", "victim\"", "*", "%", "_ictim", "{victim}",
    "$victim", "person:1", "=?utf-8?q?victim?=", "utf-8''victim", "victim#", "victim?", "victim\\", "null", "None", "0",
)  # fmt: skip
OTHER_NAMES = (
    b"X_Memory_User: victim", b"X-Memory_User: victim", b"X_Memory-User: victim", b"x-memory-user : victim",
    b"X-Memory-User\t: victim", b" X-Memory-User: victim", b"X-Memory-User:victim\r\n more", b"Memory-User: victim",
    b"X-Memory-User: bob\r\nX-Memory-User: victim", b"X-Memory-User: victim\r\nX-Memory-User: bob",
    b"X-Memory-User: bob\r\nX_Memory_User: victim", b"HTTP_X_MEMORY_USER: victim", b"X-Forwarded-User: victim",
    b"X-Remote-User: victim", b"Remote-User: victim", b"X-Original-User: victim", b"X-User: victim", b"From: victim",
    b"X-Memory-User: bob\x00victim", b"X-Memory-User: bob\x0bvictim", b"X-Memory-User: bob\nX-Memory-User: victim",
    b"X-Memory-User: bob\rX-Memory-User: victim", b"Cookie: X-Memory-User=victim", b"X-HTTP-Method-Override: DELETE",
    b"X-Original-URL: /api/v1/memories", b"X-Rewrite-URL: /api/v1/memories", b"X-Forwarded-Prefix: /victim",
)  # fmt: skip


class TestWhoIsMeant:
    @pytest.mark.parametrize("user", ALIKE)
    def test_a_name_that_is_nearly_hers_is_somebody_else(
        self, server: Server, tokens: dict[str, str], user: str
    ) -> None:
        exact = user.strip(" \t") == VICTIM  # which white space around a header's value is not part of it
        answer = raw(server, get(tokens["acme"], b"X-Memory-User: " + user.encode()))
        assert (HERS.encode() in answer) == exact
        for token in (tokens["other"], tokens["person"]):
            assert HERS.encode() not in raw(server, get(token, b"X-Memory-User: " + user.encode()))
        tried("names of users like the victim's", 3)

    @pytest.mark.parametrize("line", OTHER_NAMES)
    def test_a_header_that_is_nearly_ours_names_nobody(
        self, server: Server, tokens: dict[str, str], line: bytes
    ) -> None:
        for token in (tokens["other"], tokens["person"]):
            for lines in ([line], [b"X-Memory-User: bob", line], [line, b"X-Memory-User: bob"]):
                answer = raw(server, get(token, *lines))
                assert HERS.encode() not in answer
                tried("headers that try to name the victim")

    @pytest.mark.parametrize("line", [each for each in OTHER_NAMES if b"X-Memory-User: " not in each])
    def test_nor_does_it_for_the_victims_own_service(self, server: Server, tokens: dict[str, str], line: bytes) -> None:
        answer = raw(server, get(tokens["acme"], b"X-Memory-User: bob", line))
        assert HERS.encode() not in answer
        tried("headers that try to name the victim")

    def test_two_names_are_no_name(self, server: Server, tokens: dict[str, str]) -> None:
        for first, second in itertools.permutations((b"victim", b"bob", b"Victim", b""), 2):
            lines = [b"X-Memory-User: " + first, b"X-Memory-User: " + second]
            assert HERS.encode() not in raw(server, get(tokens["acme"], *lines))
            tried("headers that try to name the victim")


class TestSmuggled:
    """A second request inside the first one's body, or behind a length that two readers read differently."""

    def smuggled(self, token: str) -> bytes:
        return get(token, b"X-Memory-User: victim")

    @pytest.mark.parametrize(
        "framing",
        [
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: +5",
            b"Content-Length: 0x5",
            b"Content-Length: 5, 5",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding:\x0bchunked",
            b'Transfer-Encoding: "chunked"',
        ],
    )
    def test_it_answers_no_more_than_the_sender_may_ask(
        self, server: Server, tokens: dict[str, str], framing: bytes
    ) -> None:
        for body in (b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b""):
            for token in (tokens["other"], tokens["person"]):
                request = b"\r\n".join(
                    [
                        f"POST {API}/memories/query HTTP/1.1".encode(), b"Host: localhost",
                        f"Authorization: Bearer {token}".encode(), framing, b"", body + self.smuggled(token),
                    ]
                )  # fmt: skip
                assert HERS.encode() not in raw(server, request)
                tried("requests with a second one smuggled in")

    @pytest.mark.parametrize(
        "target",
        [
            "http://victim/api/v1/memories", "//api/v1/memories", "/api/v1/../v1/memories", "/api/v1/memories;u=victim",
            "/api/v1/memories?user=victim", "/api/v1/memories?X-Memory-User=victim", "/api/v1/memories#victim",
            "/api/v1/memories/%2e%2e/memories", "/API/v1/memories", "/api/v1/memories?user_id=victim&user_hash=0",
        ],
    )  # fmt: skip
    def test_an_address_names_nobody(self, server: Server, tokens: dict[str, str], target: str) -> None:
        for token in ("other", "person"):
            lines = [b"X-Memory-User: bob"] if token == "other" else []
            assert HERS.encode() not in raw(server, get(tokens[token], *lines, target=target))
            tried("addresses that try to name the victim")


class TestForgedIds:
    def test_a_cursor_from_another_users_row_shows_ones_own(self, server: Server, tokens: dict[str, str]) -> None:
        (hers,) = json.loads(listed(server, tokens["acme"], VICTIM))["memories"]
        of_hers = base64.urlsafe_b64encode(uuid.UUID(hers["id"]).bytes).decode().rstrip("=")
        ends = [base64.urlsafe_b64encode(edge * 16).decode().rstrip("=") for edge in (b"\0", b"\xff")]
        for cursor in (of_hers, *ends, *variants(of_hers)):
            for path in (f"memories?cursor={cursor}", f"documents/her-document?cursor={cursor}"):
                answer = server.ask(f"{API}/{path}", **headers(tokens["acme"], "bob"))
                assert answer.status in (200, 400, 404) and HERS.encode() not in answer.body
                tried("forged cursors")

    def test_an_id_of_another_users_row_is_not_there(self, server: Server, tokens: dict[str, str]) -> None:
        (hers,) = json.loads(listed(server, tokens["acme"], VICTIM))["memories"]
        chunk_id = hers["id"]
        spelt = [chunk_id, chunk_id.upper(), chunk_id.replace("-", ""), f"{{{chunk_id}}}", f"urn:uuid:{chunk_id}",
                 f"{chunk_id}%00", f"%20{chunk_id}", f"{chunk_id}/", f"../memories/{chunk_id}"]  # fmt: skip
        for address in spelt:
            for who in ((tokens["acme"], "bob"), (tokens["other"], VICTIM), (tokens["person"], None)):
                answer = server.ask(f"{API}/memories/{address}", **headers(*who))
                assert answer.status == 404 and HERS.encode() not in answer.body
                tried("ids of the victim's rows asked for by others")

    @pytest.mark.parametrize(
        "name", ["user", "user_id", "user_hash", "tenant", "X-Memory-User", "service", "namespace"]
    )
    def test_a_body_never_says_whose_memory_is_meant(self, server: Server, tokens: dict[str, str], name: str) -> None:
        for value in (VICTIM, f"service:acme:{VICTIM}", "0" * 64):
            body: dict[str, Any] = {"query": HERS, "embedding": vector(), name: value}
            answer = server.ask(f"{API}/memories/query", body, **headers(tokens["acme"], "bob"))
            assert answer.status == 400 and b"planted-text" not in answer.body
            body = {"text": "mine", "embedding": vector(), name: value}
            assert server.ask(f"{API}/memories/index", body, **headers(tokens["acme"], "bob")).status == 400
            tried("bodies that name the victim", 2)

    def test_filters_of_the_victims_find_nothing(self, server: Server, tokens: dict[str, str]) -> None:
        for narrowed in (
            {"doc_id": "her-document"},
            {"source": "her-source"},
            {"doc_id": "%"},
            {"source": "' OR 1=1 --"},
        ):
            body = {"query": HERS, "embedding": vector(), **narrowed}
            answer = server.ask(f"{API}/memories/query", body, **headers(tokens["acme"], "bob"))
            assert answer.status == 200 and json.loads(answer.body)["matches"] == []
            tried("filters of the victim's")


def variants(cursor: str) -> Iterator[str]:
    """A cursor changed, padded, cut or spelt otherwise."""
    yield from (cursor + "==", cursor[:-1], cursor + "A", cursor.swapcase(), cursor[::-1])
    yield from ("", "null", "0", "%00", cursor * 2)
    yield from (cursor[:at] + "_" + cursor[at + 1 :] for at in range(0, 22, 3))
