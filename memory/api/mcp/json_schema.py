"""JSON Schema of the API's serializers, for tools: made by what makes the OpenAPI description, so both say the same.

OpenAPI 3.0 differs from JSON Schema in two things: it keeps components elsewhere, and says `nullable` where JSON Schema
has a type of its own.
"""

import json
from functools import cache
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

import memory.api.schema  # noqa: F401  (tells of the fields of ours)

COMPONENTS = "#/components/schemas/"


@cache
def input_schema(serializer: type[Serializer[Any]]) -> dict[str, Any]:
    """Of the object that a serializer takes, with no other members."""
    return {**_schema(serializer, "request"), "additionalProperties": False}


@cache
def output_schema(serializer: type[Serializer[Any]]) -> dict[str, Any]:
    """Of the object that a serializer gives."""
    return _schema(serializer, "response")


def _schema(serializer: type[Serializer[Any]], direction: str) -> dict[str, Any]:
    inspector = AutoSchema()
    inspector.view = APIView()
    inspector.view.request = None  # type: ignore[assignment]
    inspector.method, inspector.path, inspector.registry = "POST", "/", ComponentRegistry()
    name = inspector.resolve_serializer(serializer(), direction).name  # type: ignore[arg-type]
    components = inspector.registry.build({})["schemas"]
    schema = _as_json_schema(components.pop(name))
    schema.pop("description", None)
    if components and COMPONENTS in json.dumps(schema):
        schema["$defs"] = {name: _as_json_schema(each) for name, each in components.items()}
    moved: dict[str, Any] = json.loads(json.dumps(schema).replace(COMPONENTS, "#/$defs/"))
    return moved


def _as_json_schema(node: Any) -> Any:
    if isinstance(node, list):
        return [_as_json_schema(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _as_json_schema(value) for key, value in node.items() if key not in ("nullable", "x-spec-enum-id")}
    if not node.get("nullable"):
        return kept
    if isinstance(kept.get("type"), str):
        return {**kept, "type": [kept["type"], "null"]}
    return {"anyOf": [kept, {"type": "null"}]}
