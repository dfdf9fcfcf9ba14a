"""The Python client knows every operation, parameter and member that the API describes of itself."""

import inspect
from dataclasses import fields
from typing import Any, get_type_hints

import pytest
from drf_spectacular.generators import SchemaGenerator
from sealed_memory import calls, models

# What each operation of the description is called by; None: no part of the client.
VERBS = {
    "index_memories": ("index", "index_later"),
    "query_memories": ("query",),
    "list_memories": ("page", "memories"),
    "erase_memories": ("erase",),
    "get_memories": ("get_many",),
    "delete_memories": ("delete_many",),
    "get_memory": ("get",),
    "patch_memory": ("update",),
    "delete_memory": ("delete",),
    "get_document": ("document", "document_page"),
    "patch_document": ("update_document",),
    "delete_document": ("delete_document",),
    "get_operation": ("operation", "wait"),
    "export_memories": ("export",),
}
NOT_FOR_CLIENTS = {"schema_retrieve", "mcp"}
# The members that a verb takes as a parameter of its own stand beside those that it takes as options.
TAKEN = {
    "DocumentInput": (models.Document, set()),
    "ChunkInput": (models.Chunk, set()),
    "QueryInput": (models.QueryOptions, {"query", "top_k"}),
    "MemoryPatchInput": (models.MemoryChanges, set()),
    "DocumentPatchInput": (models.DocumentChanges, set()),
}
GIVEN = {
    "IndexedDocumentOutput": models.IndexedDocument,
    "ChunkOutput": models.Memory,
    "MatchOutput": models.Match,
    "SurroundingsOutput": models.Surroundings,
    "ExplanationOutput": models.Explanation,
    "RerankerOutput": models.Reranker,
    "QueryOutput": models.Answer,
    "PageOutput": models.Page,
    "FoundOutput": models.Found,
    "PatchedDocumentOutput": models.ChangedDocument,
    "ErasureOutput": models.ErasureReceipt,
    "ProgressOutput": models.Progress,
    "OperationOutput": models.Operation,
}


@pytest.fixture(scope="module")
def described() -> Any:
    return SchemaGenerator().get_schema(request=None, public=True)


def operations(described: Any) -> dict[str, Any]:
    return {
        operation["operationId"]: operation
        for path, methods in described["paths"].items()
        if path.startswith("/api/v1/")
        for operation in methods.values()
    }


def members(kind: type) -> set[str]:
    return set(get_type_hints(kind)) if issubclass(kind, dict) else {each.name for each in fields(kind)}


def test_every_operation_has_a_verb(described: Any) -> None:
    assert operations(described).keys() - NOT_FOR_CLIENTS == VERBS.keys()
    assert all(callable(getattr(calls, verb)) for verbs in VERBS.values() for verb in verbs)


@pytest.mark.parametrize("name", TAKEN)
def test_every_member_can_be_given(described: Any, name: str) -> None:
    kind, apart = TAKEN[name]
    components = described["components"]["schemas"]
    component = components.get(f"{name}Request") or components[f"Patched{name}Request"]
    assert set(component["properties"]) - apart == members(kind)


@pytest.mark.parametrize("name", GIVEN)
def test_every_member_is_read(described: Any, name: str) -> None:
    assert set(described["components"]["schemas"][name]["properties"]) == members(GIVEN[name])


def test_every_parameter_can_be_given(described: Any) -> None:
    parameters = {
        name: {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
        for name, operation in operations(described).items()
    }
    assert parameters["list_memories"] == members(models.ListOptions) | {"limit", "cursor"}
    assert parameters["get_document"] == set(inspect.signature(calls.document_page).parameters) - {"doc_id"}
    assert parameters["export_memories"] == set(inspect.signature(calls.export).parameters)
    # `wait=false` is for clients that cannot send the header of `index_later`.
    assert {name for name, given in parameters.items() if given} == {
        *("list_memories", "get_document", "export_memories", "index_memories")
    }
