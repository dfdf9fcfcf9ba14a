"""Measures the service over HTTP: clients that each send the next request when the last is answered.

The tenants and their tokens are made for the run and erased again.
"""

import http.client
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import chain, count
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Any

import numpy as np
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test.utils import override_settings

from memory.access.identity import person_user_id
from memory.access.tokens import AccessToken
from memory.benchmarks.chroma_server import ChromaClient, chroma_server, fill_collection
from memory.benchmarks.command import progress
from memory.benchmarks.population import Memories, store
from memory.benchmarks.report import Report, Row, Target, at_most, less_than
from memory.benchmarks.rerank import random_weights
from memory.benchmarks.server import Answers, Client, Server, closed_loop, running_server
from memory.benchmarks.synthetic import Synthetic
from memory.benchmarks.timing import latencies
from memory.erasure import erase_user

ROW_WORDS = 30
QUESTION_WORDS = 10
# Real words, of about one token each: a made-up word is about four.
WORDS = [
    "where",
    "did",
    "the",
    "doctor",
    "say",
    "that",
    "my",
    "sister",
    "should",
    "put",
    "her",
    "new",
    "medicine",
    "before",
    "she",
    "goes",
    "back",
    "home",
    "after",
    "work",
    "on",
    "friday",
    "morning",
    "and",
    "what",
    "is",
    "name",
    "of",
    "cat",
    "we",
    "saw",
    "last",
    "summer",
    "in",
    "small",
    "town",
    "near",
    "lake",
    "with",
    "old",
    "blue",
    "house",
]
MOST_ROWS_BESIDE_CHROMA = 1_000  # for which a target is set
UNTHROTTLED = {f"MEMORY_THROTTLE_{scope}": "" for scope in ("INDEX", "QUERY", "OTHER", "TOKEN")}
NOTE = (
    "query = a question of 10 words as text, top_k 10, each client asks again when it has its answer; short and long ="
    " new documents of 20 and 2,000 tokens; read one and change its metadata = of one memory, in turns; with a key ="
    " an Idempotency-Key, in turns with documents without one; by MCP = the tool, reranked as by default, in turns with"
    " the same question at the JSON API; beside bulk ="
    " one client's questions while another stores 4 MiB at a time without pause; async = with `?wait=false`, the time"
    " until it is accepted; bulk = that client's own answers. Clients and server share the machine's cores."
)
CHROMA_NOTE = (
    "chroma = Chroma's own server, a collection per user with the same texts and vectors; the client embeds the"
    " question with the same ONNX model, and its time counts."
)
NO_CHROMA = "Chroma was not measured: --chroma names its executable, which `pip install chromadb` brings."
PLAIN, CHROMA, BESIDE_BULK = "query, plain", "query, chroma", "query beside bulk"
READ, CHANGED = "read one", "change its metadata"
UNKEYED, KEYED = "index, short, beside keys", "index, short, with a key"
BESIDE_MCP, MCP = "query, beside MCP", "search_memories by MCP"


@dataclass(frozen=True)
class Plan:
    """What to measure: questions to tenants of each of `sizes` by each number of `clients`, for `seconds` each, and
    questions beside a client that stores `bulk_bytes` at a time.

    `checkout`: another checkout whose server to measure. `environment`: variables for the server. `chroma`: the
    executable of Chroma's server, to ask it beside ours.
    """

    sizes: tuple[int, ...] = (100, 1_000, 10_000)
    clients: tuple[int, ...] = (1, 8, 32)
    seconds: float = 10.0
    bulk_bytes: int = 4 * 1024 * 1024
    checkout: Path | None = None
    chroma: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Account:
    """A throw-away user of the service."""

    user_id: str
    token: str


def measure_http(plan: Plan, *, verbosity: int = 1) -> Report:
    """Fill the tenants, start the server, ask and store, and erase everything again."""
    notes = [NOTE, CHROMA_NOTE if plan.chroma else NO_CHROMA]
    with accounts(len(plan.sizes)) as known, accounts(2) as (writer, bulk_writer), random_weights() as random_model:
        for account, size in zip(known, plan.sizes, strict=True):
            store(account.user_id, _memories(size))
        # One text of a megabyte makes a thousand chunks, and four of them stand in a request.
        roomy = {"MEMORY_MAX_CHUNKS": "100000", **_reranker(), **UNTHROTTLED, **plan.environment}
        with running_server(checkout=plan.checkout, **roomy) as server:
            rows = list(_measure(plan, server, known, writer, verbosity))
        erase_user(user_id=writer.user_id)  # and what still waits to be stored, or the next server would go on with it
        with running_server(checkout=plan.checkout, **roomy) as server:
            rows += _beside_bulk(plan, server, known, bulk_writer, verbosity)
    return Report("benchmark_http", rows, targets(rows), [*notes, random_model])


def targets(rows: Sequence[Row]) -> list[Target]:
    """The bounds on failed answers, and on latency while another client stores documents."""
    beside = [row for row in rows if row["work"] == BESIDE_BULK]
    alone = {row["tenant_rows"]: row for row in rows if row["work"] == PLAIN and row["clients"] == 1}
    found = [at_most("answers that failed", sum(row["failed"] for row in rows), 0)]
    for row in beside:
        ratio = row["p95_ms"] / alone[row["tenant_rows"]]["p95_ms"]
        found.append(at_most(f"{row['tenant_rows']:,} rows: p95 beside bulk / alone", ratio, 3.0, "×"))
    p50 = {row["work"]: row.get("p50_ms") for row in rows}
    read, changed = p50.get(READ), p50.get(CHANGED)
    if read and changed:
        found.append(at_most("p50 of changing metadata / reading", changed / read, 1.5, "×"))
    unkeyed, keyed = p50.get(UNKEYED), p50.get(KEYED)
    if unkeyed and keyed:
        found.append(at_most("p50 of index with an Idempotency-Key, beyond one without", keyed - unkeyed, 2.0, "ms"))
    by_mcp = {row["tenant_rows"]: row["p50_ms"] for row in rows if row["work"] == MCP}
    for row in rows:
        if row["work"] == BESIDE_MCP and row["p50_ms"] and by_mcp.get(row["tenant_rows"]):
            ratio = by_mcp[row["tenant_rows"]] / row["p50_ms"]
            found.append(at_most(f"{row['tenant_rows']:,} rows: p50 by MCP / by the JSON API", ratio, 1.3, "×"))
    for row in rows:
        if row["work"] == CHROMA and row["clients"] == 1 and row["tenant_rows"] <= MOST_ROWS_BESIDE_CHROMA:
            ratio = alone[row["tenant_rows"]]["p50_ms"] / row["p50_ms"]
            found.append(less_than(f"{row['tenant_rows']:,} rows: p50 / chroma's server's", ratio, 1.0, "×"))
    return found


@contextmanager
def accounts(number: int) -> Iterator[list[Account]]:
    """New accounts with a token each; at the end they are deleted with their memories."""
    users = [get_user_model().objects.create_user(f"benchmark-{token_hex(8)}") for _ in range(number)]
    try:
        yield [
            Account(person_user_id(user.pk), AccessToken.objects.issue(user=user, expires_in=timedelta(hours=6))[1])
            for user in users
        ]
    finally:
        for user in users:
            erase_user(user_id=person_user_id(user.pk))
            user.delete()


def _measure(plan: Plan, server: Server, known: Sequence[Account], writer: Account, verbosity: int) -> Iterator[Row]:
    def ask(account: Account, clients: int, rerank: bool = False) -> Answers:
        bodies = [questions(number, rerank) for number in range(clients)]
        return closed_loop(partial(Client, server.address, account.token), "memories/query", bodies, plan.seconds)

    def write(tokens: int, clients: int, wait: str = "true") -> Answers:
        bodies = [documents(number, tokens) for number in range(clients)]
        path = f"memories/index?wait={wait}"
        return closed_loop(partial(Client, server.address, writer.token), path, bodies, plan.seconds)

    ask(known[0], 1)  # loads what is loaded at the first question
    work = [
        ("query, reranked" if rerank else PLAIN, account, size, clients, rerank)
        for rerank in (False, True)
        for account, size in zip(known, plan.sizes, strict=True)
        for clients in plan.clients
    ]
    for name, account, size, clients, rerank in progress(work, "asking", verbosity=verbosity):
        yield _row(name, size, clients, ask(account, clients, rerank))
    yield from _beside_chroma(plan)
    for name, tokens in (("index, short", 20), ("index, long", 2_000)):
        for clients in plan.clients[:2]:
            yield _row(name, None, clients, write(tokens, clients))
    yield from _reads_and_changes(server.address, writer, plan.seconds)
    yield from _idempotency(server.address, writer, plan.seconds)
    for account, size in zip(known, plan.sizes, strict=True):
        yield from _doors(server.address, account, size, plan.seconds)
    for name, tokens in (("index, short, async", 20), ("index, long, async", 2_000)):  # last: they go on being stored
        yield _row(name, None, 1, write(tokens, 1, "false"))
    yield {**_row("memory of all processes", None, 0, Answers()), "mib": server.resident_bytes() / 2**20}


Call = Callable[[int], tuple[int, Any, float]]


def _in_turns(seconds: float, *calls: Call) -> list[Answers]:
    """One client makes these calls one after the other, again and again; each is given the number of its turn."""
    answers = [Answers(seconds=seconds) for _ in calls]
    give_up = monotonic() + seconds
    for number in count():
        for each, call in zip(answers, calls, strict=True):
            each.count(*call(number))
        if monotonic() >= give_up:
            break
    return answers


def _reads_and_changes(address: str, writer: Account, seconds: float) -> Iterator[Row]:
    with closing(Client(address, writer.token)) as client:
        _, stored, _ = client.post("memories/index", next(documents(0, ROW_WORDS)))
        path = f"memories/{stored['documents'][0]['chunk_ids'][0]}"
        read, changed = _in_turns(
            2 * seconds,
            lambda number: client.send("GET", path),
            lambda number: client.send("PATCH", path, {"metadata": {"turn": number}}),
        )
    yield _row(READ, None, 1, read)
    yield _row(CHANGED, None, 1, changed)


class MCPClient(Client):
    """Calls tools of `/api/mcp`."""

    prefix = "/api/"

    def call(self, tool: str, **arguments: Any) -> tuple[int, Any, float]:
        """As `post`; a result that is an error counts as one."""
        params = {"name": tool, "arguments": arguments}
        status, answer, milliseconds = self.post(
            "mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        )
        failed = "error" in answer or answer["result"].get("isError")
        return 500 if failed else status, answer, milliseconds


def _doors(address: str, account: Account, size: int, seconds: float) -> Iterator[Row]:
    """The same question at both doors."""
    asked, told = questions(1, True), questions(2, True)
    with closing(Client(address, account.token)) as client, closing(MCPClient(address, account.token)) as agent:
        plain, tool = _in_turns(
            2 * seconds,
            lambda number: client.post("memories/query", next(asked)),
            lambda number: agent.call("search_memories", query=next(told)["query"], top_k=10),
        )
    yield _row(BESIDE_MCP, size, 1, plain)
    yield _row(MCP, size, 1, tool)


def _idempotency(address: str, writer: Account, seconds: float) -> Iterator[Row]:
    """The same document with and without a key."""
    plain_bodies, keyed_bodies = documents(3, 20), documents(4, 20)
    with closing(Client(address, writer.token)) as client:
        plain, keyed = _in_turns(
            2 * seconds,
            lambda number: client.post("memories/index", next(plain_bodies)),
            lambda number: client.send(
                "POST", "memories/index", next(keyed_bodies), **{"Idempotency-Key": f"benchmark-{number}"}
            ),
        )
    yield _row(UNKEYED, None, 1, plain)
    yield _row(KEYED, None, 1, keyed)


def _beside_bulk(
    plan: Plan, server: Server, known: Sequence[Account], writer: Account, verbosity: int
) -> Iterator[Row]:
    """Questions while another client stores without pause, and what that client was answered."""
    tenants = list(zip(known, plan.sizes, strict=True))
    connect = partial(Client, server.address, known[0].token)
    closed_loop(connect, "memories/query", [questions(0, False)], plan.seconds)  # loads what is loaded at the first
    started = monotonic()
    with _filling(server.address, writer, plan.bulk_bytes) as bulk:
        for account, size in progress(tenants, "asking beside bulk", verbosity=verbosity):
            connect = partial(Client, server.address, account.token)
            yield _row(
                BESIDE_BULK, size, 1, closed_loop(connect, "memories/query", [questions(1, False)], plan.seconds)
            )
        yield {**_row("memory beside bulk", None, 0, Answers()), "mib": server.resident_bytes() / 2**20}
    bulk.seconds = monotonic() - started
    yield _row("bulk", None, 1, bulk)


def _beside_chroma(plan: Plan) -> Iterator[Row]:
    if plan.chroma is None:
        return
    # Its questions have no keywords to fall back on: they wait for the embedding.
    with chroma_server(plan.chroma) as address, override_settings(MEMORY_EMBED_TIMEOUT_MS=60_000):
        paths = {size: fill_collection(address, f"user-{size}", _memories(size)) for size in plan.sizes}
        connect = partial(ChromaClient, address, "")
        closed_loop(connect, paths[plan.sizes[0]], [questions(0, False)], plan.seconds)  # loads the client's model
        for size, path in paths.items():
            for clients in plan.clients:
                bodies = [questions(number, False) for number in range(clients)]
                yield _row(CHROMA, size, clients, closed_loop(connect, path, bodies, plan.seconds))


def _reranker() -> dict[str, str]:
    """The reranker that this process has been given, for the server's."""
    return {"RERANK_MODEL": settings.RERANK_MODEL, "RERANK_MODEL_SHA256": "", "RERANK_GOLDEN": "[]"}


@contextmanager
def _filling(address: str, writer: Account, size: int) -> Iterator[Answers]:
    """Within the block, another client posts documents of `size` bytes one after the other; yields its answers.

    At the end it hangs up: such a request may take minutes.
    """
    # Four texts to a request: one alone may have no more than a megabyte.
    bulk = (
        {"documents": [{"text": _prose(size // 4 - 200, 4 * call + part)} for part in range(4)]} for call in count()
    )
    answers, first = Answers(), next(bulk)
    client = Client(address, writer.token)

    def fill() -> None:
        with suppress(OSError, http.client.HTTPException):  # hung up
            for body in chain([first], bulk):
                answers.count(*client.post("memories/index", body))

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield answers
    finally:
        client.hang_up()
        thread.join()


def questions(seed: int, rerank: bool) -> Iterator[Mapping[str, Any]]:
    """Query bodies without end."""
    rng = np.random.default_rng(seed)
    while True:
        yield {"query": " ".join(rng.choice(WORDS, QUESTION_WORDS)), "top_k": 10, "rerank": rerank}


def documents(seed: int, tokens: int) -> Iterator[Mapping[str, Any]]:
    """Index bodies without end: a new document of about `tokens` tokens each."""
    rng = np.random.default_rng(seed)
    while True:
        yield {"text": " ".join(rng.choice(WORDS, tokens)) + ".", "source": "benchmark"}


def _prose(size: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    text = ""
    while len(text) < size:
        text += " ".join(rng.choice(WORDS, 12)).capitalize() + ". "
    return text[:size]


def _memories(size: int) -> Memories:
    source = Synthetic(settings.MEMORY_EMBEDDING_DIM, stream=size)
    return Memories(list(source.texts(size, ROW_WORDS)), source.vectors(size))


def _row(work: str, tenant_rows: int | None, clients: int, answers: Answers) -> Row:
    measured = latencies(answers.milliseconds, 50, 95, 99) if answers.milliseconds else {}
    return {
        "work": work,
        "tenant_rows": tenant_rows,
        "clients": clients,
        **{f"{name}_ms": measured.get(name) for name in ("p50", "p95", "p99")},
        "per_s": len(answers.milliseconds) / answers.seconds if answers.seconds else None,
        "refused": answers.refused,
        "failed": answers.failed,
    }
