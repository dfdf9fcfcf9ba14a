"""What must not get in: the right 4xx, the field by its name, nothing written, nothing repeated."""

import json
from typing import Any, NoReturn

import pytest
from django.test import Client

from tests.factories import API, person_client, vector

pytestmark = pytest.mark.django_db
INDEX, QUERY, MEMORIES = f"{API}/memories/index", f"{API}/memories/query", f"{API}/memories"
SECRET = "the planted secret"


@pytest.fixture
def client() -> Client:
    return person_client()


def post(client: Client, path: str, body: Any) -> Any:
    raw = body if isinstance(body, bytes | str) else json.dumps(body)
    return client.post(path, raw, content_type="application/json")


def fields(response: Any) -> list[str]:
    return [error["field"] for error in response.json().get("errors", [])]


def refused(client: Client, path: str, body: Any, status: int = 400) -> list[str]:
    """The fields a refusal names; asserts its form and that nothing was written."""
    response = post(client, path, body)
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert SECRET not in response.content.decode()
    assert client.get(MEMORIES).json()["memories"] == []
    return fields(response)


MALFORMED = {
    "empty": b"",
    "truncated": b'{"text": "the planted secret',
    "single quotes": b"{'text': 'a'}",
    "trailing comma": b'{"text": "a",}',
    "two values": b'{"text": "a"} {}',
    "not UTF-8": b'{"text": "\xff\xfe"}',
    "UTF-16": '{"text": "a"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"text": "a"}',
    "raw control character": b'{"text": "a\x00b"}',
    "doubled name": b'{"text": "the planted secret", "text": "b"}',
    "doubled name inside": b'{"text": "a", "metadata": {"k": 1, "k": 2}}',
    "depth bomb": b"[" * 100_000,
    "closed depth bomb": b'{"text": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "endless number": b'{"text": "a", "metadata": {"n": ' + b"9" * 5_000 + b"}}",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("path", [INDEX, QUERY])
def test_malformed_json_is_400(client: Client, path: str, body: bytes) -> None:
    refused(client, path, body)


@pytest.mark.parametrize("body", [[], "text", 5, None, True, [{"text": "a"}]])
def test_body_that_is_no_object_is_400(client: Client, body: Any) -> None:
    refused(client, INDEX, body)
    refused(client, QUERY, body)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_other_media_types_are_415(client: Client, content_type: str) -> None:
    response = client.generic("POST", INDEX, b'{"text": "the planted secret"}', content_type=content_type)
    assert response.status_code == 415
    assert response["Content-Type"] == "application/problem+json"
    assert SECRET not in response.content.decode()


DOCUMENTS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("nothing", {}, ["text"]),
    ("text and chunks", {"text": "a", "chunks": ["b"]}, ["text"]),
    ("empty text", {"text": ""}, ["text"]),
    ("blank text", {"text": " \n\t\u3000"}, ["text"]),
    ("null text", {"text": None}, ["text"]),
    ("number as text", {"text": 5}, ["text"]),
    ("boolean as text", {"text": True}, ["text"]),
    ("list as text", {"text": [SECRET]}, ["text"]),
    ("NUL in text", {"text": f"{SECRET}\0"}, ["text"]),
    ("lone surrogate in text", {"text": f"{SECRET}\ud800"}, ["text"]),
    ("unknown field", {"text": "a", "user_id": "person:1"}, ["user_id"]),
    ("unknown field that is content", {"text": "a", f"{SECRET}\ud800": 1}, ["(unnamed)"]),
    ("empty doc_id", {"text": "a", "doc_id": ""}, ["doc_id"]),
    ("number as doc_id", {"text": "a", "doc_id": 5}, ["doc_id"]),
    ("NUL in doc_id", {"text": "a", "doc_id": "a\0"}, ["doc_id"]),
    ("newline in doc_id", {"text": "a", "doc_id": "a\nb"}, ["doc_id"]),
    ("control character of ISO 6429 in doc_id", {"text": "a", "doc_id": "a\x85b"}, ["doc_id"]),
    ("tab in source", {"text": "a", "source": "a\tb"}, ["source"]),
    ("surrogate in source", {"text": "a", "source": "\udfff"}, ["source"]),
    ("null source", {"text": "a", "source": None}, ["source"]),
    ("metadata list", {"text": "a", "metadata": []}, ["metadata"]),
    ("metadata null", {"text": "a", "metadata": None}, ["metadata"]),
    ("NUL in metadata", {"text": "a", "metadata": {"k": ["\0"]}}, ["metadata"]),
    ("surrogate in a metadata name", {"text": "a", "metadata": {"\ud800": 1}}, ["metadata"]),
    ("NaN in metadata", {"text": "a", "metadata": {"k": float("nan")}}, ["metadata"]),
    ("infinity in metadata", {"text": "a", "metadata": {"k": {"l": float("-inf")}}}, ["metadata"]),
    ("deep metadata", {"text": "a", "metadata": json.loads('{"k":' * 30 + "1" + "}" * 30)}, ["metadata"]),
    ("no chunks", {"chunks": []}, ["chunks"]),
    ("chunks as text", {"chunks": SECRET}, ["chunks"]),
    ("empty chunk", {"chunks": ["a", ""]}, ["chunks[1]"]),
    ("number as chunk", {"chunks": [5]}, ["chunks[0]"]),
    ("chunk without text", {"chunks": [{"embedding": vector()}]}, ["chunks[0].text"]),
    ("unknown field of a chunk", {"chunks": ["a", {"text": "b", "metadata": {}}]}, ["chunks[1].metadata"]),
    ("short embedding of a chunk", {"chunks": [{"text": "a", "embedding": [1.0]}]}, ["chunks[0].embedding"]),
    ("embedding beside chunks", {"chunks": ["a"], "embedding": vector()}, ["embedding"]),
    ("two findings", {"text": 5, "doc_id": ""}, ["doc_id", "text"]),
]


@pytest.mark.parametrize(("body", "named"), [case[1:] for case in DOCUMENTS], ids=[case[0] for case in DOCUMENTS])
def test_bad_document_is_400_naming_the_field(client: Client, body: dict[str, Any], named: list[str]) -> None:
    assert sorted(refused(client, INDEX, body)) == named


def test_bad_document_in_a_batch_is_named_by_its_place_and_stops_all(client: Client) -> None:
    documents = [{"text": "good", "embedding": vector()}, {"text": "a", "chunks": 5}, {"text": ""}]
    assert refused(client, INDEX, {"documents": documents}) == ["documents[1].chunks", "documents[2].text"]


def test_doc_id_twice_in_a_batch_is_400(client: Client) -> None:
    documents = [{"doc_id": "d", "text": "a"}, {"doc_id": "d", "text": "b"}]
    assert refused(client, INDEX, {"documents": documents}) == ["documents[1].doc_id"]


@pytest.mark.parametrize("documents", [[], {}, "a", None, [5], [[]]])
def test_documents_of_a_wrong_type_are_400(client: Client, documents: Any) -> None:
    assert all(field.startswith("documents") for field in refused(client, INDEX, {"documents": documents}))


def test_fields_beside_documents_are_400(client: Client) -> None:
    assert refused(client, INDEX, {"documents": [{"text": "a"}], "text": "b"}) == ["text"]


NAN_LITERALS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e39", "1" + "0" * 400]


@pytest.mark.parametrize("literal", NAN_LITERALS)
def test_number_that_is_not_finite_is_400_naming_the_embedding(client: Client, literal: str) -> None:
    numbers = ",".join([literal] + ["0"] * (len(vector()) - 1))
    body = f'{{"documents": [{{"text": "a"}}, {{"chunks": [{{"text": "a", "embedding": [{numbers}]}}]}}]}}'
    assert refused(client, INDEX, body) == ["documents[1].chunks[0].embedding"]
    assert refused(client, QUERY, f'{{"query": "a", "embedding": [{numbers}]}}') == ["embedding"]


BAD_VECTORS: dict[str, Any] = {
    "zero": [0.0] * 384,
    "negative zero": [-0.0] * 384,
    "zero in single precision": [1e-300] * 384,
    "norm beyond single precision": [3e38] * 384,
    "short": [1.0] * 383,
    "long": [1.0] * 385,
    "empty": [],
    "strings": ["1"] * 384,
    "booleans": [True] * 384,
    "nulls": [None] * 384,
    "nested": [[1.0]] * 384,
    "text": "1,0",
    "object": {"0": 1.0},
    "null": None,
}


@pytest.mark.parametrize("embedding", BAD_VECTORS.values(), ids=BAD_VECTORS)
def test_bad_vector_is_400_naming_the_embedding(client: Client, embedding: Any) -> None:
    assert refused(client, INDEX, {"text": "a", "embedding": embedding}) == ["embedding"]
    assert refused(client, QUERY, {"query": "a", "embedding": embedding}) == ["embedding"]


QUERIES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["query"]),
    ({"query": ""}, ["query"]),
    ({"query": 5}, ["query"]),
    ({"query": "a\0"}, ["query"]),
    ({"query": "\udc00"}, ["query"]),
    *(
        ({"query": "a", "top_k": top_k}, ["top_k"])
        for top_k in (0, -1, 101, 10**9, 10**30, "5", 5.0, True, None, [5], float("nan"))
    ),
    ({"query": "a", "source": 5}, ["source"]),
    ({"query": "a", "doc_id": "\0"}, ["doc_id"]),
    ({"query": "a", "user_id": "person:1"}, ["user_id"]),
]


@pytest.mark.parametrize(("body", "named"), QUERIES)
def test_bad_query_is_400_naming_the_field(client: Client, body: dict[str, Any], named: list[str]) -> None:
    assert refused(client, QUERY, body) == named


LISTINGS = [
    ("limit=0", "limit"),
    ("limit=101", "limit"),
    ("limit=ten", "limit"),
    ("cursor=", "cursor"),
    ("cursor=nonsense", "cursor"),
    ("cursor=AAAAAAAAAAAAAAAAAAAAAB", "cursor"),
    ("cursor=%00", "cursor"),
    ("source=%00", "source"),
    ("doc_id=", "doc_id"),
    ("sort=id", "sort"),
    ("source=a&source=b", "source"),
]


@pytest.mark.parametrize(("parameters", "named"), LISTINGS)
def test_bad_parameter_is_400_by_its_name(client: Client, parameters: str, named: str) -> None:
    response = client.get(f"{MEMORIES}?{parameters}")
    assert response.status_code == 400
    assert fields(response) == [named]


@pytest.mark.parametrize("path", ["documents/%00", "documents/" + "x" * 513])
def test_bad_document_address_is_refused_by_its_name(client: Client, path: str) -> None:
    response = client.delete(f"{API}/{path}")
    assert response.status_code in (400, 413)
    assert fields(response) == ["doc_id"]


@pytest.mark.parametrize("path", ["memories/nonsense", "memories/", "memories/%00", "documents/", "nothing", ""])
def test_addresses_that_are_none_are_404(client: Client, path: str) -> None:
    response = client.delete(f"{API}/{path}")
    assert response.status_code == 404
    assert response["Content-Type"] == "application/problem+json"


def test_two_megabytes_of_text_are_413_naming_the_field(client: Client) -> None:
    assert refused(client, INDEX, {"text": "a" * 2_000_000}, 413) == ["text"]
    assert refused(client, INDEX, {"chunks": ["b", "a" * 2_000_000]}, 413) == ["chunks[1]"]


def test_text_is_measured_in_bytes_and_may_reach_the_limit(client: Client, settings: Any) -> None:
    settings.MEMORY_MAX_TEXT_BYTES = 10
    assert refused(client, INDEX, {"text": "é" * 6}, 413) == ["text"]
    assert post(client, INDEX, {"text": "é" * 5, "embedding": vector()}).status_code == 200


def test_ten_thousand_documents_are_413_naming_the_list(client: Client) -> None:
    assert refused(client, INDEX, {"documents": [{"text": "a"}] * 10_000}, 413) == ["documents"]


def test_other_sizes_are_413_naming_the_field(client: Client, settings: Any) -> None:
    settings.MEMORY_MAX_CHUNKS = 2
    assert refused(client, INDEX, {"chunks": ["a"] * 3}, 413) == ["chunks"]
    assert refused(client, INDEX, {"documents": [{"chunks": ["a", "b"]}, {"chunks": ["c"]}]}, 413) == ["documents"]
    assert refused(client, INDEX, {"text": "a", "metadata": {"k": "v" * 20_000}}, 413) == ["metadata"]
    assert refused(client, INDEX, {"text": "a", "doc_id": "d" * 513}, 413) == ["doc_id"]
    assert refused(client, INDEX, {"text": "a", "source": "s" * 256}, 413) == ["source"]
    assert refused(client, QUERY, {"query": "q" * 9_000}, 413) == ["query"]


def test_more_chunks_than_a_request_may_make_are_413_naming_the_text_and_the_number(
    client: Client, settings: Any
) -> None:
    settings.MEMORY_MAX_CHUNKS = 3
    hyphens = "-" * 1_000_000
    assert refused(client, INDEX, {"text": hyphens}, 413) == ["text"]
    documents = [{"text": "a", "embedding": vector()}, {"text": hyphens}, {"chunks": ["a"]}]
    assert refused(client, INDEX, {"documents": documents}, 413) == ["documents[1].text"]
    assert "3 chunks" in post(client, INDEX, {"text": hyphens}).json()["errors"][0]["message"]


def test_nothing_is_split_where_a_limit_is_passed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def split_text(text: str) -> NoReturn:
        raise AssertionError("split")

    monkeypatch.setattr("memory.documents.splitting.split_text", split_text)
    chunks = ["a"] * 600
    assert refused(client, INDEX, {"documents": [{"text": "a"}, {"chunks": chunks}, {"chunks": chunks}]}, 413)
    assert refused(client, INDEX, {"documents": [{"text": "a"}, {"text": "a" * 2_000_000}]}, 413)


def test_a_text_that_takes_too_long_to_split_is_413(client: Client, settings: Any) -> None:
    settings.MEMORY_SPLIT_SECONDS = -1.0
    assert refused(client, INDEX, {"text": "a word " * 1000}, 413) == ["text"]


def test_finding_of_another_kind_beside_a_size_is_400(client: Client) -> None:
    assert refused(client, INDEX, {"text": "a" * 2_000_000, "doc_id": 5}) == ["doc_id", "text"]


def test_body_beyond_the_limit_is_413(client: Client, settings: Any) -> None:
    settings.MEMORY_MAX_BODY_BYTES = 1000
    refused(client, INDEX, {"text": "a" * 1000}, 413)
    refused(client, QUERY, {"query": "a" * 1000}, 413)


def test_body_longer_than_it_says_is_413(client: Client, settings: Any) -> None:
    from io import BytesIO

    from memory.api.parsers import BodyTooLarge, StrictJSONParser

    class Request:
        META: dict[str, str] = {}

    settings.MEMORY_MAX_BODY_BYTES = 10
    with pytest.raises(BodyTooLarge):
        StrictJSONParser().parse(BytesIO(b" " * 11), parser_context={"request": Request()})


@pytest.mark.parametrize(("method", "path"), [("PUT", MEMORIES), ("GET", INDEX), ("PATCH", QUERY), ("OPTIONS", INDEX)])
def test_other_methods_are_405_and_told_which_ones_there_are(client: Client, method: str, path: str) -> None:
    response = client.generic(method, path)
    assert response.status_code == 405
    assert response["Allow"]
    assert response["Content-Type"] == "application/problem+json"


def test_accept_of_something_else_is_406(client: Client) -> None:
    response = client.get(MEMORIES, headers={"Accept": "text/csv"})
    assert response.status_code == 406
    assert response["Content-Type"] == "application/problem+json"
