"""The demo of `make demo`: two users over HTTP, a row as a dump shows it, and a copied row that does not open."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from database.roles import connect_as
from memory.access.identity import person_user_id
from memory.access.tokens import AccessToken
from memory.benchmarks.server import ServerNotReady, running_server
from memory.models import MemoryChunk, MemoryVector
from memory.rls import tenant_transaction

Say = Callable[[str], None]

SAMPLES: dict[str, list[dict[str, Any]]] = {
    "alice": [
        {
            "doc_id": "chat-2026-03-02",
            "source": "chat",
            "chunks": [
                "Alice: I finally adopted a cat from the shelter!",
                "Assistant: Wonderful! What is the cat called?",
                "Alice: Milo. He is three years old and afraid of the vacuum cleaner.",
            ],
        },
        {"doc_id": "note-allergy", "source": "notes", "text": "I am allergic to penicillin; tell every doctor."},
        {
            "doc_id": "note-flight",
            "source": "notes",
            "text": "Flight to Lisbon on Friday at 7:40, booking reference QX7PLM.",
        },
        {
            "doc_id": "note-birthday",
            "source": "notes",
            "text": "Mum's birthday is on the 14th of May; she likes peonies.",
        },
        {
            "doc_id": "note-work",
            "source": "notes",
            "text": "My manager wants the quarterly report before Thursday noon.",
        },
    ],
    "bob": [
        {
            "doc_id": "note-dog",
            "source": "notes",
            "text": "Walk Rex, the dog, at six in the morning; he pulls on the lead.",
        },
        {"doc_id": "note-coffee", "source": "notes", "text": "I drink my coffee black and only before noon."},
        {"doc_id": "note-car", "source": "notes", "text": "The car goes to the garage for new brakes on Tuesday."},
    ],
}
QUESTIONS = {
    "alice": ["What is my pet's name?", "Which medicine must I not take?"],
    "bob": ["When do I walk the dog?"],
}
STOLEN_QUESTION = "Which medicine must I not take?"


@dataclass(frozen=True)
class Account:
    """A demo user and the token of this run."""

    name: str
    user_id: str
    token: str


def run(say: Say) -> None:
    """Tell the whole story, line by line, to `say`. Raises RuntimeError when the server does not come up."""
    accounts = {name: _account(name) for name in SAMPLES}
    with _server(say) as address:
        for account in accounts.values():
            _index(say, address, account)
        for account in accounts.values():
            for question in QUESTIONS[account.name]:
                _ask(say, address, account, question)
        say("\nThe same question by somebody else, about the very document that answered it:")
        _ask(say, address, accounts["bob"], STOLEN_QUESTION, doc_id="note-allergy")
        _show_dump(say, accounts["alice"])
        with _moved_row(accounts["alice"], accounts["bob"]):
            say("\nAlice's sealed row, copied into Bob's rows by somebody with SQL access. Bob asks all that he has:")
            _ask(say, address, accounts["bob"], STOLEN_QUESTION)
    _say_goodbye(say, accounts["alice"])


def _account(name: str) -> Account:
    user, _ = get_user_model().objects.get_or_create(username=f"demo-{name}")
    AccessToken.objects.filter(user=user, label="make demo").update(revoked_at=timezone.now())
    _, token = AccessToken.objects.issue(user=user, label="make demo", expires_in=timedelta(days=1))
    return Account(name, person_user_id(user.pk), token)


@contextmanager
def _server(say: Say) -> Iterator[str]:
    """The server that `make serve` runs, on a free port of this machine, until the block ends."""
    say("Starting the server (loads the models) ...")
    started = time.monotonic()
    try:
        with running_server(WEB_CONCURRENCY="1") as server:
            say(f"Ready on {server.address} after {time.monotonic() - started:.1f} s.")
            yield server.address
    except ServerNotReady as error:
        say(str(error))
        raise


def _post(address: str, account: Account, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The answer and the milliseconds it took."""
    request = urllib.request.Request(  # noqa: S310
        f"{address}/api/v1/{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {account.token}", "Content-Type": "application/json"},
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
        return json.load(response), (time.perf_counter() - started) * 1000


def _index(say: Say, address: str, account: Account) -> None:
    documents = SAMPLES[account.name]
    say(f"\n{account.name} stores {len(documents)} documents (a server that just started loads its model first) ...")
    answer, milliseconds = _post(address, account, "memories/index", {"documents": documents})
    chunks = sum(len(document["chunk_ids"]) for document in answer["documents"])
    say(f"Stored in {chunks} chunks, {milliseconds:.0f} ms.")


def _ask(say: Say, address: str, account: Account, question: str, **filters: str) -> None:
    answer, milliseconds = _post(address, account, "memories/query", {"query": question, "top_k": 3, **filters})
    steps = ", ".join(f"{name} {value:.1f}" for name, value in answer["timings_ms"].items())
    where = "".join(f", {name}={value}" for name, value in filters.items())
    say(f'\n  {account.name} asks: "{question}"{where}   {milliseconds:.1f} ms ({steps}){_order(answer)}')
    for rank, match in enumerate(answer["matches"], start=1):
        say(f"    {rank}. {_scores(match)}  {match['text']}")
    if not answer["matches"]:
        say("    nothing found")
    if answer["integrity_failures"]:
        count = answer["integrity_failures"]
        say(f"    integrity_failures: {count} (left out: the seal does not open for {account.name})")


def _order(answer: dict[str, Any]) -> str:
    if not answer["matches"]:
        return ""
    if not answer["reranked"]:
        return f", not reranked: {answer.get('skip_reason')}"
    return f", reranked by {answer['reranker']['model']} ({answer['reranker']['fusion']})"


def _scores(match: dict[str, Any]) -> str:
    score = match.get("score")
    return f"{match['retrieval_score']:.3f}" + (f" → {score:+.2f}" if score is not None else "")


def _show_dump(say: Say, account: Account) -> None:
    """One of the user's rows as memory_backup, the role of pg_dump, reads it."""
    with tenant_transaction(account.user_id) as user_hash:
        chunk_id = MemoryChunk.objects.get(doc_id="note-allergy").id
    with connect_as("backup") as backup:
        cursor = backup.execute(
            "SELECT c.*, left(v.embedding::text, 60) AS embedding FROM memory_chunks c"
            " JOIN memory_vectors v USING (user_hash, id) WHERE c.user_hash = %s AND c.id = %s",
            [user_hash, chunk_id],
        )
        row = cursor.fetchone() or ()
        names = [column.name for column in cursor.description or ()]
    say('\n"I am allergic to penicillin …" as a database dump shows it:')
    for name, value in zip(names, row, strict=True):
        say(f"    {name:<12} {_dumped(value)}")


def _dumped(value: Any) -> str:
    shown = f"\\x{value.hex()}" if isinstance(value, bytes) else str(value).replace("\x01", "\\x01")
    return shown if len(shown) <= 72 else f"{shown[:69]}..."


@contextmanager
def _moved_row(owner: Account, thief: Account) -> Iterator[None]:
    """Within the block, `thief` has a copy of one of `owner`'s sealed rows."""
    with tenant_transaction(owner.user_id):
        row = MemoryChunk.objects.get(doc_id="note-allergy")
        vector = MemoryVector.objects.get(id=row.id)
    with tenant_transaction(thief.user_id) as user_hash:
        for moved in (row, vector):
            moved.user_hash = user_hash
            moved.save_base(raw=True, force_insert=True)  # as SQL would: nothing is opened, indexed or counted
    try:
        yield
    finally:
        with tenant_transaction(thief.user_id) as user_hash, connection.cursor() as cursor:
            cursor.execute("DELETE FROM memory_chunks WHERE user_hash = %s AND id = %s", [user_hash, row.id])


def _say_goodbye(say: Say, account: Account) -> None:
    say(
        "\nNow yours: `make serve`, then in another shell (alice's token, good for a day):\n\n"
        f"  curl -s http://127.0.0.1:8000/api/v1/memories/query -H 'Authorization: Bearer {account.token}' \\\n"
        '       -H \'Content-Type: application/json\' -d \'{"query": "Where do I fly on Friday?", "top_k": 1}\'\n\n'
        f"The API's pages: http://127.0.0.1:8000/api/v1/docs/. The rows: {_relative(settings.EMBEDDED_POSTGRES_DIR)}/"
    )


def _relative(path: str) -> str:
    try:
        return str(Path(path).relative_to(settings.BASE_DIR))
    except ValueError:
        return path
