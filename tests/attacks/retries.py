"""Mixed requests through every door while workers are killed, each sent again until it is answered; then counts.

    python -m tests.attacks.retries --requests 10000

Twenty users of one service store, ask, list, change and delete through the JSON API, MCP and the Python client. At the
end each document that was acknowledged must be there exactly once, as it was last changed, nothing that was deleted,
and nobody may have seen a row of another user. On a database, keys and a server of its own. Prints one JSON object;
exit code 1 when a promise was broken. The suite runs a few hundred requests.
"""

import argparse
import json
import random
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any, Protocol

import httpx2
import psutil
from sealed_memory import Client, NotFound, Retries

from tests.attacks import chaos

API = "/api/v1"
USERS = 20
ANSWER_SECONDS = 30
PAUSE_SECONDS = (2.0, 6.0)
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0
# What says "not now": everything else is an answer.
PASSING = (409, 429, 502, 503, 504)
# A request whose worker was killed may be carried out again after this long; the service's default is a minute.
HELD_SECONDS = 2
SETTINGS = {**chaos.UNLIMITED, "MEMORY_IDEMPOTENCY_HELD_SECONDS": str(HELD_SECONDS), "WEB_CONCURRENCY": "2"}
MCP_HEADERS = {"MCP-Protocol-Version": "2025-11-25", "Accept": "application/json, text/event-stream"}
ACTS = ("store", "store", "store", "store", "ask", "ask", "list", "change", "delete")


@dataclass(frozen=True)
class Target:
    """A server on `port` of this machine, its master process, and a service's token."""

    port: int
    pid: int
    token: str = field(repr=False)


@dataclass
class Kept:
    """A document as its user was told of it."""

    text: str
    memory_id: str
    seen: int | None = None


@dataclass
class Account:
    """What one user was told: what is there, and what is gone."""

    user: str
    there: dict[str, Kept] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)

    def look_at(self, rows: list[Mapping[str, Any]]) -> None:
        """Note every row that belongs to somebody else."""
        self.broken += [f"foreign: {row['text']}" for row in rows if not row["text"].startswith(f"{self.user} said ")]


class Door(Protocol):
    """A way in. Its methods return when the request was answered, however often it had to be sent."""

    name: str

    def store(self, text: str) -> str: ...
    def ask(self, question: str) -> list[Mapping[str, Any]]: ...
    def list(self) -> list[Mapping[str, Any]]: ...
    def change(self, memory_id: str, seen: int) -> None: ...
    def delete(self, memory_id: str) -> None: ...


# --- The doors --------------------------------------------------------------------------------------------------------
class HTTPDoor:
    """Sends JSON over connections of its own, again until there is an answer."""

    def __init__(self, target: Target, account: Account) -> None:
        self.target, self.account = target, account
        self.connection = HTTPConnection("127.0.0.1", target.port, timeout=ANSWER_SECONDS)
        self.headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {target.token}",
            "X-Memory-User": account.user,
        }

    def answer(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        wait = FIRST_WAIT
        while True:
            outcome, asked_for = self._sent(method, path, body, headers)
            if not isinstance(outcome, str) and outcome[0] not in PASSING:
                return outcome
            self.account.again[outcome if isinstance(outcome, str) else str(outcome[0])] += 1
            time.sleep(min(asked_for or wait, LONGEST_WAIT))
            wait = min(2 * wait, LONGEST_WAIT)

    def _sent(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> tuple[Any, float | None]:
        """Status and body, and the seconds of Retry-After; or why there was no answer."""
        try:
            data = None if body is None else json.dumps(body)
            self.connection.request(method, path, data, {**self.headers, **headers})
            response = self.connection.getresponse()
            content = json.loads(response.read() or b"null")
            return (response.status, content), float(response.headers.get("Retry-After") or 0)
        except (OSError, HTTPException, ValueError) as error:
            self.connection.close()
            return type(error).__name__, None

    def wanted(self, answer: tuple[int, Any], *others: int) -> Any:
        """The body of a success; anything else that was not expected is a broken promise."""
        status, body = answer
        if status != 200 and status not in others:
            self.account.broken.append(f"{self.name} {status}: {str(body)[:300]}")  # type: ignore[attr-defined]
            return {}
        return body


class JSONDoor(HTTPDoor):
    """The JSON API. Documents get no id from us: the Idempotency-Key alone keeps them single."""

    name = "json"

    def store(self, text: str) -> str:
        body = self.wanted(self._change("POST", "/memories/index", {"text": text}))
        return str(body["documents"][0]["chunk_ids"][0]) if body else ""

    def ask(self, question: str) -> list[Mapping[str, Any]]:
        body = self.wanted(self.answer("POST", f"{API}/memories/query", {"query": question, "top_k": 5}))
        return list(body.get("matches", ()))

    def list(self) -> list[Mapping[str, Any]]:
        return list(self.wanted(self.answer("GET", f"{API}/memories?limit=20")).get("memories", ()))

    def change(self, memory_id: str, seen: int) -> None:
        self.wanted(self._change("PATCH", f"/memories/{memory_id}", {"metadata": {"seen": seen}}))

    def delete(self, memory_id: str) -> None:
        # 404: it was carried out, and its worker killed before the answer was kept (decision 40).
        self.wanted(self._change("DELETE", f"/memories/{memory_id}"), 404)

    def _change(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return self.answer(method, API + path, body, **{"Idempotency-Key": str(uuid.uuid4())})


class MCPDoor(HTTPDoor):
    """The tools. They have no keys: an agent names the document, and a tool that is called again replaces it."""

    name = "mcp"

    def call(self, tool: str, missing_is_fine: bool = False, **arguments: Any) -> Any:
        params = {"name": tool, "arguments": arguments}
        wait = FIRST_WAIT
        while True:
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            body = self.wanted(self.answer("POST", "/api/mcp", message, **MCP_HEADERS))
            result = body.get("result", {})
            if not result.get("isError"):
                return result.get("structuredContent", {})
            problem = json.loads(result["content"][0]["text"])
            if problem["status"] not in PASSING:
                return {} if missing_is_fine and problem["status"] == 404 else self.wanted((problem["status"], problem))
            self.account.again[f"tool {problem['status']}"] += 1
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def store(self, text: str) -> str:
        ids = self.call("add_memory", text=text, id=str(uuid.uuid4())).get("memory_ids")
        return str(ids[0]) if ids else ""

    def ask(self, question: str) -> list[Mapping[str, Any]]:
        return list(self.call("search_memories", query=question, top_k=5).get("matches", ()))

    def list(self) -> list[Mapping[str, Any]]:
        return list(self.call("get_memories", limit=20).get("memories", ()))

    def change(self, memory_id: str, seen: int) -> None:
        self.call("update_memory", memory_id=memory_id, metadata={"seen": seen})

    def delete(self, memory_id: str) -> None:
        self.call("delete_memory", missing_is_fine=True, memory_id=memory_id)


class ClientDoor:
    """The Python client, which sends again by itself."""

    name = "client"

    def __init__(self, target: Target, account: Account) -> None:
        self.attempts = account.again
        http = httpx2.Client(timeout=ANSWER_SECONDS, event_hooks={"response": [self._count]})
        retries = Retries(attempts=10_000, first_wait=FIRST_WAIT, longest_wait=max(LONGEST_WAIT, HELD_SECONDS + 1))
        self.memory = Client(
            f"http://127.0.0.1:{target.port}",
            token=target.token,
            user=account.user,
            retries=retries,
            http=http,
        )

    def _count(self, response: httpx2.Response) -> None:
        if response.status_code in PASSING:
            self.attempts[f"client {response.status_code}"] += 1

    def store(self, text: str) -> str:
        return self.memory.index(text)[0].chunk_ids[0]

    def ask(self, question: str) -> list[Mapping[str, Any]]:
        return [vars(each) for each in self.memory.query(question, top_k=5).matches]

    def list(self) -> list[Mapping[str, Any]]:
        return [vars(each) for each in self.memory.page(limit=20).memories]

    def change(self, memory_id: str, seen: int) -> None:
        self.memory.update(memory_id, metadata={"seen": seen})

    def delete(self, memory_id: str) -> None:
        with suppress(NotFound):
            self.memory.delete(memory_id)


DOORS: tuple[Callable[[Target, Account], Door], ...] = (JSONDoor, MCPDoor, ClientDoor)


# --- The run ----------------------------------------------------------------------------------------------------------
def work(account: Account, doors: list[Door], turns: Iterator[int], drawn: random.Random) -> None:
    """One user's requests, one after the other, each by a door drawn at random."""
    for turn in turns:
        door, act = drawn.choice(doors), drawn.choice(ACTS)
        if act in ("change", "delete") and not account.there:
            act = "store"
        try:
            carry_out(account, door, act, turn, drawn)
            account.answered[f"{door.name} {act}"] += 1
        except Exception as error:
            account.broken.append(f"{door.name} {act}: {error!r}"[:300])


def carry_out(account: Account, door: Door, act: str, turn: int, drawn: random.Random) -> None:
    if act == "store":
        text = f"{account.user} said {turn}"
        account.there[text] = Kept(text, door.store(text))
    elif act == "ask":
        account.look_at(door.ask(f"What was said about {turn}?"))
    elif act == "list":
        account.look_at(door.list())
    else:
        kept = account.there[drawn.choice(sorted(account.there))]
        if act == "change":
            door.change(kept.memory_id, turn)
            kept.seen = turn
        else:
            door.delete(kept.memory_id)
            account.gone.add(account.there.pop(kept.text).text)


class Turns:
    """The numbers of all requests, shared by the users."""

    def __init__(self, count: int) -> None:
        self._left, self._lock = iter(range(count)), threading.Lock()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        with self._lock:
            return next(self._left)


def kill_workers(target: Target, over: threading.Event, drawn: random.Random, pause: tuple[float, float]) -> int:
    """Kill a worker at random now and then; returns how often."""
    kills = 0
    while not over.wait(drawn.uniform(*pause)):
        with suppress(psutil.Error, IndexError):
            drawn.choice(psutil.Process(target.pid).children()).send_signal(signal.SIGKILL)
            kills += 1
    return kills


def broken_promises(account: Account, target: Target) -> list[str]:
    """What is not as the user was told, by a list of everything."""
    with Client(f"http://127.0.0.1:{target.port}", token=target.token, user=account.user) as memory:
        found = list(memory.memories(limit=100))
    account.look_at([vars(each) for each in found])
    times = Counter(each.text for each in found)
    rows = {each.text: each for each in found}
    wrong = [f"{times[text]} times {text}" for text in account.there if times[text] != 1]
    wrong += [f"not told of {text}" for text in times.keys() - account.there.keys()]
    wrong += [f"came back {text}" for text in account.gone & times.keys()]
    for text, kept in account.there.items():
        if text in rows and (rows[text].id, rows[text].metadata.get("seen")) != (kept.memory_id, kept.seen):
            wrong.append(f"another id or metadata: {text}")
    return account.broken + wrong


def run(target: Target, requests: int, seed: int, pause: tuple[float, float] = PAUSE_SECONDS) -> dict[str, Any]:
    """Carry out so many requests by twenty users while workers are killed; counts, and every broken promise."""
    began, over = time.monotonic(), threading.Event()
    turns = Turns(requests)
    accounts = [Account(f"user{number}") for number in range(USERS)]
    kills: list[int] = []
    killer = threading.Thread(
        target=lambda: kills.append(kill_workers(target, over, random.Random(seed), pause))  # noqa: S311
    )
    users = [
        threading.Thread(
            target=work,
            args=(account, [door(target, account) for door in DOORS], turns, random.Random(f"{seed} {account.user}")),  # noqa: S311
        )
        for account in accounts
    ]
    for thread in [killer, *users]:
        thread.start()
    for thread in users:
        thread.join()
    over.set()
    killer.join()
    took = time.monotonic() - began
    answered = sum((account.answered for account in accounts), Counter())
    again = sum((account.again for account in accounts), Counter())
    return {
        "seed": seed,
        "requests": answered.total(),
        "seconds": round(took, 1),
        "a_second": round(answered.total() / took, 1),
        "workers_killed": kills[0],
        "answered": dict(sorted(answered.items())),
        "sent_again": dict(sorted(again.items())),
        "documents": sum(len(account.there) for account in accounts),
        "deleted": sum(len(account.gone) for account in accounts),
        "broken": [promise for account in accounts for promise in broken_promises(account, target)],
    }


class Service(chaos.Service):
    """A server of its own, with the settings of this run."""

    def environment(self) -> dict[str, str]:
        return super().environment() | SETTINGS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with chaos.running_service(Service) as service:
        assert service.process
        result = run(Target(service.port, service.process.pid, service.token), options.requests, options.seed)
        result["verify_integrity"] = json.loads(service.command("verify_integrity", "--json"))
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 1 if result["broken"] or result["verify_integrity"]["found"] else 0


if __name__ == "__main__":
    sys.exit(main())
