"""Mixed requests through every door while workers are killed, each sent again until it is answered; then counts.

    python -m tests.attacks.retries --requests 10000

Twenty users of one service store, ask, list, change and delete through the JSON API, MCP, the Python client and
mem0's door. At the end each document that was acknowledged must be there exactly once, as it was last changed, nothing
that was deleted, and nobody may have seen a row of another user. On a database, keys and a server of its own. Prints
one JSON object; exit code 1 when a promise was broken. The suite runs a few hundred requests.
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
from itertools import chain
from typing import Any, Protocol

import httpx2
import psutil
from sealed_memory import Client, NotFound, Retries

from tests.attacks import chaos

API = "/api/v1"
USERS = 20
ANSWER_SECONDS = 30
# A worker is killed after so many more requests were answered: however slowly it starts, there is progress.
KILL_AFTER = (50, 150)
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0
# A request that is not answered for so long, however often it is sent, is a broken promise, and the end of its user.
GIVE_UP_SECONDS = 180
# What says "not now": everything else is an answer.
PASSING = (409, 429, 502, 503, 504)
# A request whose worker was killed may be carried out again after this long; the service's default is a minute.
HELD_SECONDS = 2
SETTINGS = {**chaos.UNLIMITED, "MEMORY_IDEMPOTENCY_HELD_SECONDS": str(HELD_SECONDS), "WEB_CONCURRENCY": "2"}
Rows = list[Mapping[str, Any]]
READING_TOOLS = ("search_memories", "get_memories")
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
    """A document as its user was told of it, and by which door: mem0's has ids of its own."""

    text: str
    memory_id: str
    door: str
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

    def look_at(self, rows: Rows) -> None:
        """Note every row that belongs to somebody else."""
        self.broken += [f"foreign: {row['text']}" for row in rows if not row["text"].startswith(f"{self.user} said ")]


class Door(Protocol):
    """A way in. Its methods return when the request was answered, however often it had to be sent."""

    name: str

    def store(self, text: str) -> str: ...
    def ask(self, question: str) -> Rows: ...
    def list(self) -> Rows: ...
    def change(self, memory_id: str, seen: int) -> None: ...
    def delete(self, memory_id: str) -> None: ...
    def close(self) -> None: ...


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
        wait, until = FIRST_WAIT, time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < until:
            outcome, asked_for = self._sent(method, path, body, headers)
            if not isinstance(outcome, str) and outcome[0] not in PASSING:
                return outcome
            self.account.again[outcome if isinstance(outcome, str) else str(outcome[0])] += 1
            time.sleep(min(asked_for or wait, LONGEST_WAIT))
            wait = min(2 * wait, LONGEST_WAIT)
        raise TimeoutError(f"{method} {path.partition('?')[0]}")

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

    def close(self) -> None:
        self.connection.close()

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

    def ask(self, question: str) -> Rows:
        body = self.wanted(self.answer("POST", f"{API}/memories/query", {"query": question, "top_k": 5}))
        return list(body.get("matches", ()))

    def list(self) -> Rows:
        return list(self.wanted(self.answer("GET", f"{API}/memories?limit=20")).get("memories", ()))

    def change(self, memory_id: str, seen: int) -> None:
        self.wanted(self._change("PATCH", f"/memories/{memory_id}", {"metadata": {"seen": seen}}))

    def delete(self, memory_id: str) -> None:
        # 404: it was carried out, and its worker killed before the answer was kept (decision 40).
        self.wanted(self._change("DELETE", f"/memories/{memory_id}"), 404)

    def _change(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return self.answer(method, API + path, body, **{"Idempotency-Key": str(uuid.uuid4())})


class MCPDoor(HTTPDoor):
    """The tools. What changes something carries a key; nothing names a document."""

    name = "mcp"

    def call(self, tool: str, missing_is_fine: bool = False, **arguments: Any) -> Any:
        params = {"name": tool, "arguments": arguments}
        key = {} if tool in READING_TOOLS else {"Idempotency-Key": str(uuid.uuid4())}
        wait, until = FIRST_WAIT, time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < until:
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            body = self.wanted(self.answer("POST", "/api/mcp", message, **MCP_HEADERS, **key))
            result = body.get("result", {})
            if not result.get("isError"):
                return result.get("structuredContent", {})
            problem = json.loads(result["content"][0]["text"])
            if problem["status"] not in PASSING:
                return {} if missing_is_fine and problem["status"] == 404 else self.wanted((problem["status"], problem))
            self.account.again[f"tool {problem['status']}"] += 1
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        raise TimeoutError(tool)

    def store(self, text: str) -> str:
        ids = self.call("add_memory", text=text).get("memory_ids")
        return str(ids[0]) if ids else ""

    def ask(self, question: str) -> Rows:
        return list(self.call("search_memories", query=question, top_k=5).get("matches", ()))

    def list(self) -> Rows:
        return list(self.call("get_memories", limit=20).get("memories", ()))

    def change(self, memory_id: str, seen: int) -> None:
        self.call("update_memory", memory_id=memory_id, metadata={"seen": seen})

    def delete(self, memory_id: str) -> None:
        self.call("delete_memory", missing_is_fine=True, memory_id=memory_id)


class Mem0Door(HTTPDoor):
    """The door of mem0's clients, as they speak: the user is named in the body, or by the id that they were given."""

    name = "mem0"

    def __init__(self, target: Target, account: Account) -> None:
        super().__init__(target, account)
        self.headers = {"Content-Type": "application/json", "Authorization": f"Token {target.token}"}
        self.whose = {"user_id": account.user}

    def store(self, text: str) -> str:
        message = {"messages": [{"role": "user", "content": text}], **self.whose}
        body = self.wanted(self._change("POST", "/v3/memories/add/", message))
        return str(body["results"][0]["id"]) if body else ""

    def ask(self, question: str) -> Rows:
        return self._rows("/v3/memories/search/", {"query": question, "top_k": 5, "filters": self.whose})

    def list(self) -> Rows:
        return self._rows("/v3/memories/?page=1&page_size=20", {"filters": self.whose})

    def change(self, memory_id: str, seen: int) -> None:
        self.wanted(self._change("PUT", f"/v1/memories/{memory_id}/", {"metadata": {"seen": seen}}))

    def delete(self, memory_id: str) -> None:
        self.wanted(self._change("DELETE", f"/v1/memories/{memory_id}/"), 404)

    def _rows(self, path: str, body: Any) -> Rows:
        found = self.wanted(self.answer("POST", f"/api/mem0{path}", body)).get("results", ())
        return [{**each, "text": each["memory"]} for each in found]

    def _change(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return self.answer(method, f"/api/mem0{path}", body, **{"Idempotency-Key": str(uuid.uuid4())})


class ClientDoor:
    """The Python client, which sends again by itself."""

    name = "client"

    def __init__(self, target: Target, account: Account) -> None:
        self.attempts = account.again
        http = httpx2.Client(timeout=ANSWER_SECONDS, event_hooks={"response": [self._count]})
        retries = Retries(
            attempts=GIVE_UP_SECONDS, first_wait=FIRST_WAIT, longest_wait=max(LONGEST_WAIT, HELD_SECONDS + 1)
        )
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

    def ask(self, question: str) -> Rows:
        return [vars(each) for each in self.memory.query(question, top_k=5).matches]

    def list(self) -> Rows:
        return [vars(each) for each in self.memory.page(limit=20).memories]

    def change(self, memory_id: str, seen: int) -> None:
        self.memory.update(memory_id, metadata={"seen": seen})

    def delete(self, memory_id: str) -> None:
        with suppress(NotFound):
            self.memory.delete(memory_id)

    def close(self) -> None:
        self.memory.close()


DOORS: tuple[Callable[[Target, Account], Door], ...] = (JSONDoor, MCPDoor, ClientDoor, Mem0Door)


# --- The run ----------------------------------------------------------------------------------------------------------
def work(account: Account, doors: list[Door], turns: Iterator[int], drawn: random.Random) -> None:
    """One user's requests, one after the other, each by a door drawn at random."""
    for turn in turns:
        door, act = drawn.choice(doors), drawn.choice(ACTS)
        known = sorted(text for text, kept in account.there.items() if (kept.door == "mem0") == (door.name == "mem0"))
        if act in ("change", "delete") and not known:
            act = "store"
        try:
            carry_out(account, door, act, turn, drawn.choice(known or [""]))
            account.answered[f"{door.name} {act}"] += 1
        except Exception as error:
            account.broken.append(f"{door.name} {act}: {error!r}"[:300])
            return


def carry_out(account: Account, door: Door, act: str, turn: int, chosen: str) -> None:
    if act == "store":
        text = f"{account.user} said {turn}"
        account.there[text] = Kept(text, door.store(text), door.name)
    elif act == "ask":
        account.look_at(door.ask(f"What was said about {turn}?"))
    elif act == "list":
        account.look_at(door.list())
    else:
        kept = account.there[chosen]
        if act == "change":
            door.change(kept.memory_id, turn)
            kept.seen = turn
        else:
            door.delete(kept.memory_id)
            account.gone.add(account.there.pop(kept.text).text)


class Turns:
    """The numbers of all requests, shared by the users."""

    def __init__(self, count: int) -> None:
        self.taken, self._left, self._lock = 0, iter(range(count)), threading.Lock()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        with self._lock:
            turn = next(self._left)
            self.taken += 1
            return turn


def kill_workers(
    target: Target, turns: Turns, over: threading.Event, drawn: random.Random, after: tuple[int, int]
) -> int:
    """Kill a worker at random now and then; returns how often."""
    kills, next_at = 0, drawn.randint(*after)
    while not over.wait(0.05):
        if turns.taken < next_at:
            continue
        next_at = turns.taken + drawn.randint(*after)
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
        if text not in rows:
            continue
        told_id = rows[text].id if kept.door == "mem0" else kept.memory_id
        if (rows[text].id, rows[text].metadata.get("seen")) != (told_id, kept.seen):
            wrong.append(f"another id or metadata: {text}")
    return account.broken + wrong


def run(target: Target, requests: int, seed: int, kill_after: tuple[int, int] = KILL_AFTER) -> dict[str, Any]:
    """Carry out so many requests by twenty users while workers are killed; counts, and every broken promise."""
    began, over = time.monotonic(), threading.Event()
    turns = Turns(requests)
    accounts = [Account(f"user{number}") for number in range(USERS)]
    doors = [[door(target, account) for door in DOORS] for account in accounts]
    kills: list[int] = []
    killer = threading.Thread(
        daemon=True,
        target=lambda: kills.append(kill_workers(target, turns, over, random.Random(seed), kill_after)),  # noqa: S311
    )
    users = [
        threading.Thread(
            daemon=True,
            target=work,
            args=(account, ways_in, turns, random.Random(f"{seed} {account.user}")),  # noqa: S311
        )
        for account, ways_in in zip(accounts, doors, strict=True)
    ]
    for thread in [killer, *users]:
        thread.start()
    for thread in users:
        thread.join()
    for door in chain.from_iterable(doors):
        door.close()
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
