"""LangGraph's store: beside its own InMemoryStore on the same operations, and in the cases that a store is asked about.

Against the service at SEALED_MEMORY_URL, as the user of SEALED_MEMORY_TOKEN, and as two users that the service of
SEALED_MEMORY_SERVICE_TOKEN names. MEMORY_FILTERABLE_METADATA there names langgraph_prefixes and colour.
"""

import asyncio
import math
import os
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore
from sealed_memory import AsyncClient, Client, Document, InvalidRequest, TooLarge
from sealed_memory.langgraph import (
    ITEM,
    PREFIXES,
    SOURCE,
    UNINDEXED,
    ScanLimitExceeded,
    SealedMemoryStore,
    doc_id_of,
    holds,
)


@pytest.fixture
def memory() -> Iterator[Client]:
    with Client() as client:
        client.erase()
        yield client
        client.erase()


@pytest.fixture
def store(memory: Client) -> SealedMemoryStore:
    return SealedMemoryStore(memory)


def keys(items: Iterable[Item]) -> list[str]:
    return [item.key for item in items]


# --- Beside InMemoryStore ---------------------------------------------------------------------------------------------

LABELS = st.sampled_from(["a", "b", "ab", "ü", "a b", "*x"])
NAMESPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
PREFIX = st.lists(LABELS, max_size=2).map(tuple)
KEYS = st.sampled_from(["1", "2", "k/ü", "."])
NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 2.5, 1e22, 2**60]))
# Every value has a number under n, or InMemoryStore raises where others find nothing.
VALUES = st.fixed_dictionaries(
    {"n": NUMBERS},
    optional={
        "s": st.sampled_from(["", "red", "blue", "ünï", "[1]"]),
        "l": st.lists(st.integers(0, 2), max_size=2),
        "o": st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 1)),
        "none": st.none(),
    },
)
COMPARISONS = st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$eq", "$ne"]), NUMBERS, min_size=1)
FILTERS = st.one_of(
    st.none(),
    st.fixed_dictionaries({"n": st.one_of(NUMBERS, COMPARISONS)}),
    st.fixed_dictionaries({"s": st.one_of(st.just("red"), st.just({"$ne": "red"}), st.none())}),
    st.fixed_dictionaries({"l": st.lists(st.integers(0, 2), max_size=2), "n": COMPARISONS}),
    st.fixed_dictionaries({"o": st.fixed_dictionaries({"x": st.integers(0, 1)})}),
)
PATHS = st.lists(st.one_of(LABELS, st.just("*")), min_size=1, max_size=2).map(tuple)
CONDITIONS = st.lists(st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), PATHS), max_size=2).map(tuple)
OPS = st.one_of(
    st.builds(GetOp, NAMESPACES, KEYS),
    st.builds(PutOp, NAMESPACES, KEYS, st.one_of(st.none(), VALUES), st.sampled_from([None, False]), st.none()),
    st.builds(SearchOp, PREFIX, FILTERS, st.just(1000)),
)
EVERYTHING = 1000


class Beside(RuleBasedStateMachine):
    """The same operations on both stores have the same results, but for order, which no store promises, and times."""

    def batched(self, ops: list[Op]) -> list[Any]:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        with Client() as client:
            client.erase()
        self.model = InMemoryStore()

    def told(self, ops: list[Op]) -> list[Any]:
        """What both say. Our answer comes back."""
        ours, theirs = self.batched(ops), self.model.batch(ops)
        assert [plain(each) for each in ours] == [plain(each) for each in theirs]
        return ours

    @rule(namespace=NAMESPACES, key=KEYS, value=VALUES, index=st.sampled_from([None, False]))
    def put(self, namespace: Any, key: str, value: Any, index: Any) -> None:
        self.told([PutOp(namespace, key, value, index)])

    @rule(namespace=NAMESPACES, key=KEYS)
    def delete(self, namespace: Any, key: str) -> None:
        self.told([PutOp(namespace, key, None)])

    @rule(namespace=NAMESPACES, key=KEYS)
    def get(self, namespace: Any, key: str) -> None:
        self.told([GetOp(namespace, key)])

    @rule(prefix=PREFIX, wanted=FILTERS)
    def search(self, prefix: Any, wanted: Any) -> None:
        self.told([SearchOp(prefix, wanted, EVERYTHING)])

    @rule(prefix=PREFIX, wanted=FILTERS, limit=st.integers(0, 3), offset=st.integers(0, 2))
    def search_a_part(self, prefix: Any, wanted: Any, limit: int, offset: int) -> None:
        (whole,) = self.told([SearchOp(prefix, wanted, EVERYTHING)])
        (part,) = self.batched([SearchOp(prefix, wanted, limit, offset)])
        assert plain(whole[offset : offset + limit]) == plain(part)

    @rule(prefix=PREFIX, wanted=FILTERS)
    def ask(self, prefix: Any, wanted: Any) -> None:
        """Asked a question, ours ranks what it has text of; nothing that the filter lets through is left out."""
        (ranked,) = self.batched([SearchOp(prefix, wanted, EVERYTHING, query="red and blue numbers")])
        assert plain(ranked) == plain(self.model.batch([SearchOp(prefix, wanted, EVERYTHING)])[0])

    @rule(conditions=CONDITIONS, depth=st.sampled_from([None, 1, 2]), limit=st.integers(0, 4), offset=st.integers(0, 2))
    def list_namespaces(self, conditions: Any, depth: Any, limit: int, offset: int) -> None:
        # InMemoryStore also lists the namespaces that were only asked for, and those that are empty again.
        present = InMemoryStore()
        present.batch([PutOp(each.namespace, each.key, {}) for each in self.model.search((), limit=EVERYTHING)])
        op = ListNamespacesOp(conditions, depth, limit, offset)
        assert self.batched([op]) == present.batch([op])

    @rule(ops=st.lists(OPS, min_size=2, max_size=6))
    def batch(self, ops: list[Op]) -> None:
        self.told(ops)


def plain(result: Any) -> Any:
    """A result without times, and without an order."""
    if isinstance(result, Item):
        return (result.namespace, result.key, result.value)
    return sorted(map(plain, result), key=repr) if isinstance(result, list) else result


class InThreads(Beside):
    @initialize()
    def connect(self) -> None:
        self.client = Client()

    def batched(self, ops: list[Op]) -> list[Any]:
        return SealedMemoryStore(self.client, filterable=["colour"]).batch(ops)

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.client.close()


class InALoop(Beside):
    @initialize()
    def connect(self) -> None:
        self.runner = asyncio.Runner()
        self.client = AsyncClient()

    def batched(self, ops: list[Op]) -> list[Any]:
        return self.runner.run(SealedMemoryStore(self.client).abatch(ops))

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.client.close())
            self.runner.close()


# Enough for CI on a busy machine; more by LANGGRAPH_EXAMPLES.
FEW = settings(
    max_examples=int(os.environ.get("LANGGRAPH_EXAMPLES", "4")),
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestInThreads, TestInALoop = InThreads.TestCase, InALoop.TestCase
TestInThreads.settings = TestInALoop.settings = FEW


# --- What is asked of a store -----------------------------------------------------------------------------------------


def test_a_value_is_put_got_replaced_and_deleted(store: SealedMemoryStore) -> None:
    namespace = ("notes", "house")
    store.put(namespace, "key", {"where": "flower pot", "deep": {"list": [1, 2.5, None, True, "ü"]}})
    first = store.get(namespace, "key")
    assert first and first.value["deep"] == {"list": [1, 2.5, None, True, "ü"]}
    assert (first.namespace, first.key) == (namespace, "key")
    store.put(namespace, "key", {"where": "neighbour"})
    second = store.get(namespace, "key")
    assert second and second.value == {"where": "neighbour"}
    assert second.created_at == first.created_at <= first.updated_at < second.updated_at
    assert store.get(("notes",), "key") is None and store.get(("notes", "other"), "key") is None
    store.delete(namespace, "key")
    store.delete(namespace, "key")
    assert store.get(namespace, "key") is None and store.search(()) == []


def test_a_batch_reads_what_was_there_before_its_puts(store: SealedMemoryStore) -> None:
    store.put(("a",), "1", {"v": 1})
    results = store.batch(
        [
            PutOp(("a",), "2", {"v": 2}),
            GetOp(("a",), "1"),
            PutOp(("a",), "1", None),
            SearchOp(("a",)),
            PutOp(("a",), "3", {"v": 3}),
            PutOp(("a",), "3", {"v": 4}),
            ListNamespacesOp(),
            GetOp(("a",), "2"),
        ]
    )
    assert results[1] and results[1].value == {"v": 1}
    assert keys(results[3]) == ["1"] and results[6] == [("a",)] and results[7] is None
    assert sorted((each.key, each.value["v"]) for each in store.search(("a",))) == [("2", 2), ("3", 4)]


def test_nothing_is_written_when_one_operation_is_not_valid(store: SealedMemoryStore) -> None:
    for wrong in (
        SearchOp(("a",), {"n": {"$regex": "x"}}),
        GetOp(("a.b",), "1"),
        PutOp(("",), "1", {}),
        ListNamespacesOp((MatchCondition("prefix", ("a.b",)),)),
    ):
        with pytest.raises(ValueError):
            store.batch([PutOp(("a",), "1", {"v": 1}), wrong])
    with pytest.raises(TooLarge) as refused:
        store.batch([PutOp(("a",), "1", {"v": 1}), PutOp(("a",), "2", {"v": "x" * 20_000})])
    assert refused.value.errors[0].field == "documents[1].metadata"
    with pytest.raises(InvalidNamespaceError):
        store.put((), "1", {})
    assert store.search(()) == []


def test_numbers_are_compared_as_numbers_and_strings_as_strings(store: SealedMemoryStore) -> None:
    scores = {"a": 2, "b": 9, "c": 10, "d": 11, "e": 9.5, "text": "10", "true": True, "null": None}
    store.batch([PutOp(("scores",), key, {"score": score}) for key, score in scores.items()])
    store.put(("scores",), "without", {})

    def found(wanted: Any) -> list[str]:
        return sorted(keys(store.search(("scores",), filter={"score": wanted}, limit=100)))

    assert found({"$gte": 10}) == ["c", "d"]  # as text, "9" would come after "10"
    assert found({"$gt": 9, "$lt": 10}) == ["e"]
    assert found({"$lte": 9}) == ["a", "b"]
    assert found({"$gte": "0"}) == ["text"]
    assert found({"$ne": 9}) == sorted({*scores, "without"} - {"b"})
    assert found({"$eq": True}) == ["true"] and found(1) == [] and found(None) == ["null", "without"]


def test_strings_nested_objects_and_lists_are_filtered(store: SealedMemoryStore) -> None:
    store.put(("people",), "ann", {"name": "ann", "at": {"city": "Bonn", "zip": 53111}, "tags": ["a", "b"]})
    store.put(("people",), "bob", {"name": "bob", "at": {"city": "Ulm", "zip": 89073}, "tags": ["a"]})
    for wanted, expected in (
        ({"name": {"$gt": "ann"}}, ["bob"]),
        ({"at": {"city": "Bonn"}}, ["ann"]),
        ({"at": {"zip": {"$gte": 60_000}}}, ["bob"]),
        ({"tags": ["a"]}, ["bob"]),
        ({"tags": "a"}, []),
        ({"name": "ann", "at": {"city": "Ulm"}}, []),
    ):
        assert keys(store.search(("people",), filter=wanted)) == expected, wanted


def test_a_question_finds_what_answers_it_first(store: SealedMemoryStore) -> None:
    texts = {"key": "The spare key is under the flower pot.", "dog": "Rex is a dog.", "tea": "Ann drinks green tea."}
    store.batch([PutOp(("notes",), key, {"text": text}) for key, text in texts.items()])
    store.put(("notes",), "secret", {"text": "The spare key is elsewhere."}, index=False)
    found = store.search(("notes",), query="Where is the spare key?")
    assert found[0].key == "key" and found[-1].key == "secret" and len(found) == 4
    assert found[0].score is not None and found[0].score > (found[1].score or 0) and found[-1].score is None
    # What has no text to be searched comes after everything else, as with InMemoryStore.
    assert keys(store.search(("notes",), query="Where is the spare key?", limit=3))[0] == "key"
    assert "secret" not in keys(store.search(("notes",), query="Where is the spare key?", limit=3))
    store.put(("notes",), "key", {"text": "Milo is a cat."})
    assert store.search(("notes",), query="Who is a cat?")[0].key == "key"


def test_the_fields_that_are_named_are_searched(memory: Client) -> None:
    store = SealedMemoryStore(memory, fields=["about", "parts[*].text"])
    value = {"about": "gardening", "parts": [{"text": "roses"}, {"text": "the spare key"}], "hidden": "penicillin"}
    store.put(("docs",), "one", value)
    store.put(("docs",), "two", {"about": "penicillin", "parts": []})
    store.put(("docs",), "three", {"hidden": "allergies"}, index=["hidden"])
    assert store.search(("docs",), query="spare key")[0].key == "one"
    assert keys(store.search(("docs",), query="penicillin"))[0] == "two"
    assert keys(store.search(("docs",), query="allergies"))[0] == "three"
    texts = [each.text for each in memory.document(doc_id_of(("docs",), "one"))]
    assert texts == ["gardening", "roses", "the spare key"]
    found = store.search(("docs",), query="roses and keys")
    assert len(found) == 3 and len(set(keys(found))) == 3 and found[0].value == value


def test_questions_are_read_page_by_page(store: SealedMemoryStore) -> None:
    store.batch([PutOp(("docs",), str(number), {"text": f"test document {number}"}) for number in range(5)])
    pages = [keys(store.search(("docs",), query="test", limit=2, offset=offset)) for offset in (0, 2, 4)]
    assert [len(page) for page in pages] == [2, 2, 1] and len({key for page in pages for key in page}) == 5
    for question in ("", " ", None):
        assert all(each.score is None for each in store.search(("docs",), query=question))
    assert len(store.search(("docs",), query="test " * 100)) == 5
    assert len(store.search(("docs",), query="test!@#$%^&*()")) == 5


def test_other_scripts_are_found(store: SealedMemoryStore) -> None:
    texts = {"1": "这是中文", "2": "これは日本語です", "3": "이건 한국어야", "4": "Это русский"}
    store.batch([PutOp(("Nutzerin_ü", "记忆"), key, {"text": text}) for key, text in texts.items()])
    for key, text in texts.items():
        assert store.search(("Nutzerin_ü",), query=text)[0].key == key
    assert store.list_namespaces() == [("Nutzerin_ü", "记忆")]


def test_namespaces_are_listed_by_what_they_begin_and_end_with(store: SealedMemoryStore) -> None:
    given = [
        *(("test", "documents", "public"), ("test", "documents", "private"), ("test", "images", "public")),
        *(("prod", "documents", "public"), ("prod",), ("testing", "documents")),
    ]
    store.batch([PutOp(namespace, "x", {}) for namespace in given])
    assert store.list_namespaces() == sorted(given)
    assert store.list_namespaces(prefix=("test",)) == sorted(given[:3])
    assert store.list_namespaces(suffix=("public",), max_depth=2) == [
        *(("prod", "documents"), ("test", "documents"), ("test", "images"))
    ]
    assert store.list_namespaces(prefix=("*", "documents"), suffix=("public",)) == [given[3], given[0]]
    assert store.list_namespaces(limit=2, offset=1) == sorted(given)[1:3]
    assert keys(store.search(("test", "documents"))) == ["x", "x"] and store.search(("tes",)) == []


# --- Times to live ----------------------------------------------------------------------------------------------------


def expiry(memory: Client, key: str) -> datetime:
    found = memory.document(doc_id_of(("t",), key))[0].expires_at
    assert found
    return found


def test_an_item_lives_from_its_last_use(memory: Client) -> None:
    store = SealedMemoryStore(memory, ttl={"default_ttl": 60, "refresh_on_read": True})
    now = datetime.now(UTC)
    store.put(("t",), "default", {"text": "one"})
    store.put(("t",), "own", {"text": "two"}, ttl=5)
    store.put(("t",), "never", {"text": "three"}, ttl=None)
    assert expiry(memory, "default") - now > timedelta(minutes=59.9)
    assert timedelta(minutes=4.9) < expiry(memory, "own") - now < timedelta(minutes=6)
    assert memory.document(doc_id_of(("t",), "never"))[0].expires_at is None
    for read in (
        lambda refresh: store.get(("t",), "own", refresh_ttl=refresh),
        lambda refresh: store.search(("t",), refresh_ttl=refresh),
        lambda refresh: store.search(("t",), query="two", refresh_ttl=refresh),
    ):
        before = expiry(memory, "own")
        read(False)
        assert expiry(memory, "own") == before
        read(None)
        assert expiry(memory, "own") > before
    assert (item := store.get(("t",), "own")) and item.value == {"text": "two"}
    assert memory.document(doc_id_of(("t",), "never"))[0].expires_at is None


@pytest.mark.parametrize("ttl", [1e12, math.nan, math.inf])
def test_a_time_to_live_that_is_none_is_refused(store: SealedMemoryStore, ttl: float) -> None:
    with pytest.raises(ValueError):
        store.put(("t",), "1", {}, ttl=ttl)
    assert store.search(()) == []


def test_what_has_expired_is_in_no_answer(store: SealedMemoryStore) -> None:
    store.put(("t",), "gone", {"text": "a spare key"}, ttl=0)
    store.put(("t",), "here", {"text": "a spare key"})
    assert store.get(("t",), "gone") is None
    assert keys(store.search(("t",))) == keys(store.search(("t",), query="spare key")) == ["here"]
    store.put(("u",), "gone", {}, ttl=0)
    assert store.list_namespaces() == [("t",)]


# --- Whose it is ------------------------------------------------------------------------------------------------------


@pytest.fixture
def of_service() -> Iterator[Client]:
    with Client(token=os.environ["SEALED_MEMORY_SERVICE_TOKEN"], user="nobody") as client:
        yield client


def test_an_element_of_the_namespace_is_the_user(of_service: Client) -> None:
    store = SealedMemoryStore(of_service, user_at=1)
    ann, bob = f"ann-{uuid.uuid4()}", f"Bob {uuid.uuid4()}"
    store.batch([PutOp(("memories", user, "x"), "1", {"text": f"{user} likes dogs."}) for user in (ann, bob)])
    found = store.batch([SearchOp(("memories", ann)), SearchOp(("memories", bob)), GetOp(("memories", bob, "x"), "1")])
    assert [[each.value["text"] for each in part] for part in found[:2]] == [
        [f"{ann} likes dogs."],
        [f"{bob} likes dogs."],
    ]
    assert found[2] and found[2].value["text"].startswith(bob)
    assert [each.text for each in of_service.for_user(ann).memories()] == [f'{{"text": "{ann} likes dogs."}}']
    assert list(of_service.memories()) == []
    assert store.list_namespaces(prefix=("memories", ann)) == [("memories", ann, "x")]
    of_service.for_user(ann).erase()
    assert store.search(("memories", ann)) == [] and len(store.search(("memories", bob))) == 1
    of_service.for_user(bob).erase()


def test_what_names_no_user_is_refused(of_service: Client) -> None:
    store = SealedMemoryStore(of_service, user_at=1)
    for ask in (
        lambda: store.search(("memories",)),
        lambda: store.search(()),
        lambda: store.put(("memories",), "1", {}),
        lambda: store.list_namespaces(),
        lambda: store.list_namespaces(prefix=("memories", "*")),
        lambda: store.list_namespaces(suffix=("memories", "ann")),
    ):
        with pytest.raises(ValueError, match="must name the user"):
            ask()


def test_the_async_client_awaits_and_the_other_goes_to_a_thread(memory: Client) -> None:
    async def walk() -> None:
        async with AsyncClient() as client:
            for store in (SealedMemoryStore(client), SealedMemoryStore(memory)):
                await store.aput(("a",), "1", {"text": "The spare key is under the flower pot."})
                assert keys(await store.asearch(("a",), query="spare key")) == ["1"]
                assert (await store.aget(("a",), "1")) is not None
                assert await store.alist_namespaces() == [("a",)]
                await store.adelete(("a",), "1")
                assert await store.aget(("a",), "1") is None
            with pytest.raises(TypeError):
                SealedMemoryStore(client).batch([])

    asyncio.run(walk())


# --- What the service cannot do ---------------------------------------------------------------------------------------


def test_a_filter_is_followed_through_all_that_a_question_finds(store: SealedMemoryStore) -> None:
    """The service gives a hundred at most; what the filter wants is the last of a hundred and thirty."""
    store.batch([PutOp(("many",), str(n), {"text": f"the spare key of house {n}", "n": n}) for n in range(129)])
    store.put(("many",), "last", {"text": "an umbrella", "n": 1000})
    assert keys(store.search(("many",), query="spare key", filter={"n": {"$gte": 1000}})) == ["last"]
    found = keys(store.search(("many",), query="spare key", limit=200))
    assert len(found) == len(set(found)) == 130
    assert found[-10:] == keys(store.search(("many",), query="spare key", limit=10, offset=120))
    assert len(store.search(("many",), filter={"n": {"$lt": 100}}, limit=200)) == 100


def test_a_search_that_looks_at_too_much_says_so(memory: Client) -> None:
    store = SealedMemoryStore(memory, scan_limit=20)
    store.batch([PutOp(("many",), str(n), {"text": f"number {n}", "n": n}) for n in range(30)])
    for ask in (
        lambda: store.search(("many",), filter={"n": {"$gt": 1000}}),
        lambda: store.search(("many",), query="number", filter={"n": {"$gt": 1000}}),
        lambda: store.list_namespaces(),
    ):
        with pytest.raises(ScanLimitExceeded):
            ask()
    assert len(store.search(("many",), limit=20)) == 20


def test_equality_is_narrowed_by_the_service_where_both_know_the_key(memory: Client) -> None:
    before = SealedMemoryStore(memory)
    before.put(("c",), "old", {"colour": "red"})  # without the copy that the service hashes
    store = SealedMemoryStore(memory, filterable=["colour"], scan_limit=5)
    store.batch([PutOp(("c",), str(n), {"colour": "blue", "n": n}) for n in range(20)])
    store.put(("c",), "new", {"colour": "red"})
    store.put(("c",), "list", {"colour": ["red"]})
    store.put(("c",), "one", {"colour": 1})
    assert sorted(keys(store.search(("c",), filter={"colour": "red"}))) == ["new", "old"]
    assert sorted(keys(store.search(("c",), query="red", filter={"colour": {"$eq": "red"}}))) == ["new", "old"]
    assert sorted(keys(store.search(("c",), filter={"colour": {"$ne": "blue"}}))) == ["list", "new", "old", "one"]
    assert keys(store.search(("c",), filter={"colour": 1.0})) == ["one"]
    assert keys(store.search(("c",), filter={"colour": True})) == []
    with pytest.raises(ScanLimitExceeded):
        before_with_limit = SealedMemoryStore(memory, scan_limit=5)
        before_with_limit.search(("c",), filter={"colour": "green"})
    unknown = SealedMemoryStore(memory, filterable=["shape"])
    with pytest.raises(InvalidRequest) as refused:
        unknown.search(("c",), filter={"shape": "round"})
    assert "shape" in refused.value.errors[0].field
    with pytest.raises(ValueError, match=PREFIXES):
        SealedMemoryStore(memory, filterable=[PREFIXES])


def test_what_others_stored_is_no_item(memory: Client, store: SealedMemoryStore) -> None:
    memory.index("not an item", source=SOURCE, doc_id=doc_id_of(("a",), "1"))
    memory.index("half an item", source=UNINDEXED, metadata={ITEM: {"key": "1"}})
    memory.index("something else", source="chat")
    assert store.get(("a",), "1") is None
    assert store.search(()) == store.search((), query="item") == store.list_namespaces() == []


def test_a_dump_shows_neither_namespace_nor_key(memory: Client, store: SealedMemoryStore) -> None:
    store.put(("health", "penicillin"), "allergy", {"text": "x"})
    (stored,) = memory.memories()
    assert not any(word in stored.doc_id + stored.source for word in ("health", "penicillin", "allergy"))
    assert doc_id_of(("a", "b"), "c") != doc_id_of(("a",), "b") != doc_id_of(("a",), "c")


def test_large_batches_are_stored_in_parts(store: SealedMemoryStore) -> None:
    store.batch([PutOp(("big",), str(n), {"text": "word " * 2_000}, index=False) for n in range(230)])
    assert len(store.search(("big",), limit=500)) == 230


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", object()])
def test_what_is_no_json_is_refused_here(store: SealedMemoryStore, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        store.put(("a",), "1", {"v": value}, index=False)
    assert store.search(()) == []


def test_holding_is_decided_as_json() -> None:
    assert holds({"a": [1, {"b": 2}]}, {"a": [1, {"b": {"$lt": 3}}]})
    assert not holds(None, {"$gt": 1}) and not holds("2", {"$gt": 1}) and not holds(True, {"$gte": 0})
    assert holds(1.0, 1) and not holds(True, 1) and holds(None, None) and holds([], [])


def test_documents_of_the_store_are_plain_documents(memory: Client, store: SealedMemoryStore) -> None:
    store.put(("notes",), "key", {"text": "The spare key is under the flower pot."})
    memory.index(documents=[Document(text="The dog is called Rex.")])
    assert {each.source for each in memory.query("Where is the spare key?").matches} == {SOURCE, ""}
