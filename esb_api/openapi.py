"""The OpenAPI 3.1 document, made of the declared operations and the models they name."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from importlib import metadata
from typing import Any, Final

from openapi_pydantic import OpenAPI
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from esb_api.call import JSON, MERGE_PATCH
from esb_api.operations import Operation
from esb_api.params import NoQuery
from esb_api.principals import Access
from esb_api.problems import CONTENT_TYPE
from esb_api.schemas.problem import Problem

Json = dict[str, Any]
Refs = Mapping[tuple[Any, JsonSchemaMode], Json]

_REF: Final = "#/components/schemas/{model}"

_VISIBLE: Final = {"type": "string", "pattern": "^[!-~]{1,200}$"}
#: Request headers that an operation may name.
HEADERS: Final[Mapping[str, Json]] = {
    "If-Match": {"description": "Apply only to the version with this ETag.", "schema": {"type": "string"}},
    "Idempotency-Key": {
        "description": "Repeats with this key within 24 hours get the first answer again.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    },
    "Prefer": {
        "description": "`wait=SECONDS` (0 to 30): answer with the final state if it is reached in time.",
        "schema": {"type": "string", "examples": ["wait=5"]},
    },
    "X-Correlation-ID": {"description": "Correlation id, where the body names none.", "schema": _VISIBLE},
    "traceparent": {"description": "W3C trace context, passed on.", "schema": {"type": "string"}},
}

_ABOUT: Final = """Registers services and clients, routes messages, runs workflows.

Every call but the open ones takes a key, as `X-API-Key: KEY` or `Authorization: Bearer KEY`. Every error is an
`application/problem+json` object with a stable `code`. Timestamps are RFC 3339 in UTC, durations are milliseconds.
Every answer carries `X-Request-ID`, and `X-Correlation-ID`, which is taken from the request if it has one."""


def document(operations: Sequence[Operation]) -> Json:
    """The document as plain data, checked against the model of OpenAPI 3.1."""
    refs, schemas = _schemas(operations)
    paths: Json = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, refs)
    whole = {
        "openapi": "3.1.0",
        "info": {"title": "Enterprise Service Bus", "version": version(), "description": _ABOUT},
        "security": [{"apiKey": []}, {"bearer": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }
    OpenAPI.model_validate(whole)
    return whole


def version() -> str:
    """The version of the installed distribution."""
    try:
        return metadata.version("python-esb")
    except metadata.PackageNotFoundError:
        return "0"


# --- schemas ---------------------------------------------------------------------------------------------


def _schemas(operations: Iterable[Operation]) -> tuple[Refs, Json]:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(Problem, "serialization"): None}
    patched: list[type[BaseModel]] = []
    for operation in operations:
        if operation.body is not None:
            wanted[operation.body, "validation"] = None
            if operation.merges:
                patched.append(operation.body)
        for model in operation.answers.values():
            if isinstance(model, type):
                wanted[model, "serialization"] = None
    refs, top = models_json_schema(list(wanted), ref_template=_REF)
    schemas: Json = top.get("$defs", {})
    for body in dict.fromkeys(patched):
        _add_patch(refs[body, "validation"]["$ref"], schemas)
    return refs, schemas


def _add_patch(ref: str, schemas: Json) -> str:
    """The schema of merge patches for the object schema at `ref`: nothing is required, null resets."""
    name = ref.rpartition("/")[2] + "Patch"
    if name not in schemas:
        schemas[name] = {}  # stands for itself, should the schema be recursive
        schema = copy.deepcopy(schemas[ref.rpartition("/")[2]])
        schema.pop("required", None)
        schema["title"] = name
        for field, inner in schema.get("properties", {}).items():
            schema["properties"][field] = _nullable(inner, schemas)
        schemas[name] = schema
    return _REF.format(model=name)


def _nullable(schema: Json, schemas: Json) -> Json:
    branches = schema.get("anyOf", [schema])
    notes = {key: schema[key] for key in ("description", "title") if key in schema}
    return notes | {
        "anyOf": [*(_patch_branch(b, schemas) for b in branches if b != {"type": "null"}), {"type": "null"}]
    }


def _patch_branch(schema: Json, schemas: Json) -> Json:
    ref = schema.get("$ref")
    if ref and schemas[ref.rpartition("/")[2]].get("type") == "object":
        return {"$ref": _add_patch(ref, schemas)}
    return {key: value for key, value in schema.items() if key not in ("default", "description", "title")}


# --- operations ------------------------------------------------------------------------------------------


def _operation(operation: Operation, refs: Refs) -> Json:
    described = {
        "tags": [operation.tag],
        "operationId": to_camel(operation.view.__name__),
        "summary": operation.summary.rstrip("."),
        "description": inspect.cleandoc(operation.view.__doc__ or "").partition("\n")[2].strip(),
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_header_parameters(operation)],
        "requestBody": _request_body(operation, refs),
        "responses": _responses(operation, refs),
    }
    if operation.access is Access.OPEN:
        return {key: value for key, value in described.items() if value} | {"security": []}
    return {key: value for key, value in described.items() if value}


def _path_parameters(operation: Operation) -> list[Json]:
    def schema(name: str) -> Json:
        return {"type": "string", "minLength": 1} if name in operation.texts else {"type": "string", "format": "uuid"}

    return [{"name": name, "in": "path", "required": True, "schema": schema(name)} for name in operation.names]


def _query_parameters(operation: Operation) -> list[Json]:
    if operation.query is NoQuery:
        return []
    whole = operation.query.model_json_schema(by_alias=True)
    return [
        _query_parameter(name, schema, name in whole.get("required", ()))
        for name, schema in whole["properties"].items()
    ]


def _query_parameter(name: str, schema: Json, required: bool) -> Json:
    branches = [branch for branch in schema.get("anyOf", ()) if branch != {"type": "null"}]
    if len(branches) == 1:
        schema = {key: value for key, value in schema.items() if key not in ("anyOf", "default")} | branches[0]
    description = schema.pop("description", None)
    schema.pop("title", None)
    parameter = {"name": name, "in": "query", "required": required, "schema": schema}
    if schema.get("type") == "array":
        parameter |= {"style": "form", "explode": False}
    return parameter | ({"description": description} if description else {})


def _header_parameters(operation: Operation) -> list[Json]:
    return [{"name": name, "in": "header", "required": False, **HEADERS[name]} for name in operation.headers]


def _request_body(operation: Operation, refs: Refs) -> Json | None:
    content: Json = {media_type: {"schema": schema} for media_type, schema in operation.media.items()}
    if operation.body is not None:
        schema = dict(refs[operation.body, "validation"])
        if operation.merges:
            schema["$ref"] += "Patch"
        if operation.method == "PATCH":
            content[MERGE_PATCH] = {"schema": schema}
        content[JSON] = {"schema": schema}
    return {"content": content, "required": not operation.body_optional} if content else None


def _responses(operation: Operation, refs: Refs) -> Json:
    responses: Json = {}
    for status, model in operation.answers.items():
        responses[str(status)] = {"description": HTTPStatus(status).phrase}
        if model is not None:
            responses[str(status)]["content"] = _content(model, refs)
    problem = {CONTENT_TYPE: {"schema": refs[Problem, "serialization"]}}
    for status in sorted(refusals(operation) - set(operation.answers)):
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": problem}
    return responses


def _content(model: type[BaseModel] | str, refs: Refs) -> Json:
    if isinstance(model, str):
        return {model: {"schema": {"type": "object" if _is_json(model) else "string"}}}
    return {JSON: {"schema": refs[model, "serialization"]}}


def _is_json(media_type: str) -> bool:
    """`application/json`, or a type with the suffix `+json` (RFC 6839)."""
    return media_type == JSON or media_type.endswith("+json")


def refusals(operation: Operation) -> set[int]:
    """Every status by which the call may be refused."""
    statuses = {400, 422, 503, *operation.refusals}
    if operation.access is not Access.OPEN:
        statuses |= {401, 403}
    if operation.names:
        statuses.add(404)
    if "If-Match" in operation.headers:
        statuses.add(412)
    if operation.body is not None or operation.media:
        statuses |= {413, 415}
    return statuses
