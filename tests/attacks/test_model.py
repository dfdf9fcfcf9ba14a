"""Users, operators and restarts in any order, beside a dictionary that knows what must be there.

Hypothesis draws the order: no row of another user is ever shown, none is lost, and none comes back. ATTACK_EXAMPLES=500
makes a long run.
"""

import io
import json
import os
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connections
from django.test import Client, override_settings
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from keys.generation import generate_key
from keys.keyring import derive_subkey, get_keyring
from keys.models import RotationRun
from keys.rotation import rotate
from memory.rotation.encryption_key import EncryptionKeyMover
from memory.rotation.hmac_key import HMACKeyMover
from memory.rotation.integrity import inspect_all
from tests.attacks.tally import tried
from tests.factories import API, api_client, make_service, vector_of

EXAMPLES = int(os.environ.get("ATTACK_EXAMPLES", "5"))
STEPS = 40
# To find a shorter order that fails takes minutes: ATTACK_SHRINK=1.
PHASES = [Phase.generate, Phase.shrink] if os.environ.get("ATTACK_SHRINK") else [Phase.generate]
NAMES = ("alice", "bob", "carol")
TEXTS = tuple(f"{word} {number}" for word in ("apollo", "garden", "violin", "passport") for number in range(4))

users = st.sampled_from(NAMES)
doc_ids = st.sampled_from(("diary", "notes", "a/b c"))
sources = st.sampled_from(("chat", ""))
texts = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3, unique=True)
metadata = st.dictionaries(st.sampled_from("xyz"), st.sampled_from([1, "two", None, [3]]), max_size=2)
patches = st.dictionaries(st.sampled_from("xyz"), st.sampled_from([None, 2, "two"]), min_size=1, max_size=3)

ROTATIONS = {
    "encryption": ("MEMORY_ENCRYPTION_KEY", "MEMORY_ENCRYPTION_KEYS_ACCEPTED", EncryptionKeyMover),
    "hmac": ("MEMORY_TENANT_HMAC_KEY", "MEMORY_TENANT_HMAC_KEYS_ACCEPTED", HMACKeyMover),
}


class Memories(RuleBasedStateMachine):
    """Three users of one service over HTTP, and their operator."""

    secret: str

    def __init__(self) -> None:
        super().__init__()
        self.truth: dict[str, dict[UUID, dict[str, Any]]] = {name: {} for name in NAMES}
        self.gone: list[UUID] = []
        self.overridden: list[override_settings] = []
        self.promoted: set[str] = set()

    def client(self, user: str) -> Client:
        return api_client(self.secret, user=user)

    def call(self, user: str, method: str, address: str, body: Any = None, *, expected: int = 200) -> Any:
        response = self.client(user).generic(method, f"{API}/{address}", _json(body), "application/json")
        assert response.status_code == expected, (method, response.status_code, response.content[:300])
        tried("steps of users in the stateful model")
        return response.json()

    @initialize(texts=st.permutations(TEXTS))
    def everybody_has_something(self, texts: list[str]) -> None:
        for number, user in enumerate(NAMES):
            self.index(user, "diary", "chat", texts[number * 3 : number * 3 + 3], {"x": number})

    # --- Users -------------------------------------------------------------------------------------------------------
    @rule(user=users, doc_id=doc_ids, source=sources, texts=texts, metadata=metadata)
    def store(self, user: str, doc_id: str, source: str, texts: list[str], metadata: dict[str, Any]) -> None:
        self.index(user, doc_id, source, texts, metadata)

    def index(self, user: str, doc_id: str, source: str, texts: list[str], metadata: dict[str, Any]) -> None:
        chunks = [{"text": text, "embedding": vector_of(text).tolist()} for text in texts]
        body = {"doc_id": doc_id, "source": source, "chunks": chunks, "metadata": metadata}
        (stored,) = self.call(user, "POST", "memories/index", body)["documents"]
        replaced = self.of_document(user, doc_id)
        assert stored["replaced"] == len(replaced)
        self.forget(user, replaced)
        for place, (chunk_id, text) in enumerate(zip(stored["chunk_ids"], texts, strict=True)):
            self.truth[user][UUID(chunk_id)] = {
                "doc_id": doc_id, "source": source, "chunk_index": place, "text": text, "metadata": metadata,
            }  # fmt: skip

    @rule(user=users, pick=st.integers(0, 99), text=st.sampled_from((*TEXTS, None)), metadata=patches)
    def patch(self, user: str, pick: int, text: str | None, metadata: dict[str, Any]) -> None:
        if chunk_id := self.picked(user, pick):
            body: dict[str, Any] = {"metadata": metadata}
            if text is not None:
                body |= {"text": text, "embedding": vector_of(text).tolist()}
            self.call(user, "PATCH", f"memories/{chunk_id}", body)
            chunk = self.truth[user][chunk_id]
            named = {name: value for name, value in metadata.items() if value is not None}
            stays = {name: value for name, value in chunk["metadata"].items() if name not in metadata}
            chunk["metadata"] = stays | named
            chunk["text"] = chunk["text"] if text is None else text

    @rule(user=users, pick=st.integers(0, 99))
    def delete_one(self, user: str, pick: int) -> None:
        if chunk_id := self.picked(user, pick):
            self.call(user, "DELETE", f"memories/{chunk_id}")
            self.forget(user, [chunk_id])

    @rule(user=users, doc_id=doc_ids)
    def delete_document(self, user: str, doc_id: str) -> None:
        there = self.of_document(user, doc_id)
        self.call(user, "DELETE", f"documents/{doc_id}", expected=200 if there else 404)
        self.forget(user, there)

    @rule(user=users)
    def erase(self, user: str) -> None:
        receipt = self.call(user, "DELETE", "memories")
        assert receipt["deleted"].get("memory_chunks", 0) == len(self.truth[user])
        self.forget(user, list(self.truth[user]))

    @rule(user=users, text=st.sampled_from(TEXTS))
    def ask(self, user: str, text: str) -> None:
        body = {"query": text, "embedding": vector_of(text).tolist(), "top_k": 100}
        answer = self.call(user, "POST", "memories/query", body)
        assert answer["integrity_failures"] == 0
        found = {UUID(match["id"]): match["text"] for match in answer["matches"]}
        assert found == {chunk_id: chunk["text"] for chunk_id, chunk in self.truth[user].items()}
        if text in found.values():
            assert answer["matches"][0]["text"] == text

    @rule(user=users)
    def list_all(self, user: str) -> None:
        self.assert_listed(user)

    @rule(user=users, other=users, pick=st.integers(0, 99))
    def reach_for_anybodys(self, user: str, other: str, pick: int) -> None:
        """By an id that exists, one that is gone, or one that never was."""
        target = self.picked(other, pick) or (self.gone[pick % len(self.gone)] if self.gone else uuid4())
        if target in self.truth[user]:
            self.assert_is(self.call(user, "GET", f"memories/{target}"), self.truth[user][target])
            return
        for method in ("GET", "DELETE", "PATCH"):
            self.call(user, method, f"memories/{target}", {"metadata": {"x": 1}}, expected=404)
        assert self.call(user, "POST", "memories/delete", {"ids": [str(target)]})["deleted"] == 0
        tried("reaches for a row that is another's, gone, or never was", 4)

    # --- The operator ------------------------------------------------------------------------------------------------
    def set(self, **values: Any) -> None:
        self.overridden.append(override_settings(**values))
        self.overridden[-1].enable()

    @rule(act=st.sampled_from(("promote encryption", "promote hmac", "rotate", "retire", "reindex", "restart")))
    def operate(self, act: str) -> None:
        if act.startswith("promote"):
            self.promote(act.removeprefix("promote "))
        elif act in ("rotate", "retire"):
            for kind in sorted(self.promoted):
                self.rotate(kind, retire=act == "retire")
        elif act == "reindex":
            self.set(MEMORY_VECTOR_ROTATION=not django_settings.MEMORY_VECTOR_ROTATION)
            call_command("reindex", verbosity=0, keep_embeddings=True, stdout=io.StringIO())
        else:
            self.restart()
        tried("acts of the operator in the stateful model")

    def promote(self, kind: str) -> None:
        variable, accepted, _ = ROTATIONS[kind]
        if kind not in self.promoted:
            self.set(**{variable: generate_key(), accepted: [getattr(django_settings, variable)]})
            self.promoted.add(kind)

    def rotate(self, kind: str, *, retire: bool) -> None:
        _, accepted, mover = ROTATIONS[kind]
        run = rotate(mover(), started_by="the model")
        assert run.state == RotationRun.State.FINISHED, run.failures
        if retire:
            self.set(**{accepted: []})
            self.promoted.discard(kind)

    def restart(self) -> None:
        connections.close_all()
        connections["default"].close_pool()  # type: ignore[attr-defined]
        get_keyring.cache_clear()
        derive_subkey.cache_clear()

    # --- The truth ---------------------------------------------------------------------------------------------------
    def picked(self, user: str, pick: int) -> UUID | None:
        there = sorted(self.truth[user])
        return there[pick % len(there)] if there else None

    def of_document(self, user: str, doc_id: str) -> list[UUID]:
        return [chunk_id for chunk_id, chunk in self.truth[user].items() if chunk["doc_id"] == doc_id]

    def forget(self, user: str, chunk_ids: list[UUID]) -> None:
        for chunk_id in chunk_ids:
            del self.truth[user][chunk_id]
        self.gone += chunk_ids

    def assert_is(self, shown: dict[str, Any], chunk: dict[str, Any]) -> None:
        assert {name: shown[name] for name in chunk} == chunk

    def assert_listed(self, user: str) -> None:
        cursor, seen = "", {}
        while cursor is not None:
            page = self.call(user, "GET", f"memories?limit=3{cursor and f'&cursor={cursor}'}")
            assert page["integrity_failures"] == 0
            seen |= {UUID(shown["id"]): shown for shown in page["memories"]}
            cursor = page["next_cursor"]
        assert seen.keys() == self.truth[user].keys()
        for chunk_id, shown in seen.items():
            self.assert_is(shown, self.truth[user][chunk_id])

    @invariant()
    def there_are_as_many_rows_as_there_should_be(self) -> None:
        with connections["default"].connect_as("backup") as backup:  # type: ignore[attr-defined]
            for table in ("memory_chunks", "memory_vectors"):
                counted = backup.execute(f"SELECT count(*) FROM {table}").fetchone()
                assert counted == (sum(map(len, self.truth.values())),)

    def teardown(self) -> None:
        try:
            for user in NAMES:
                self.assert_listed(user)
            assert inspect_all().found == 0
        finally:
            for user in NAMES:
                self.client(user).delete(f"{API}/memories")
            for overriding in reversed(self.overridden):
                overriding.disable()
        tried("orders of acts in the stateful model")


def _json(body: Any) -> str:
    return "" if body is None else json.dumps(body)


@pytest.mark.django_db(transaction=True)
def test_whatever_the_order_everybody_has_their_own_and_all_of_it() -> None:
    Memories.secret = make_service("model")
    unlimited = {f"MEMORY_THROTTLE_{scope}": "" for scope in ("INDEX", "QUERY", "OTHER", "TOKEN")}
    with override_settings(**unlimited):
        run_state_machine_as_test(
            Memories,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                print_blob=True,
                phases=PHASES,
                suppress_health_check=list(HealthCheck),
            ),
        )
