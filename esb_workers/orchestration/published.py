"""The JSON Schema of definitions, for editors: made from the models, and from the step types that are installed.

What a schema cannot say (targets, reachability, expressions) `definition.compile_definition` says alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from esb_workers.expressions.schemas import DIALECT
from esb_workers.orchestration.document import CompensationDocument, DefinitionDocument, StepDocument
from esb_workers.orchestration.steps import step_types
from esb_workers.orchestration.steps.base import StepType
from esb_workers.orchestration.steps.schema import SchemaStep

JSON = dict[str, Any]
_STEP: Final = {"$ref": "#/$defs/step"}
_NAME: Final = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"}


def definition_schema(types: Mapping[str, StepType] | None = None) -> JSON:
    """The schema of a definition. `#/$defs/workflow` is that of a whole workflow: name, version and definition."""
    known = step_types() if types is None else types
    defs: JSON = {}
    root = _model(DefinitionDocument, defs)
    for name, kind in known.items():
        defs[f"config.{name}"] = kind.config_schema if isinstance(kind, SchemaStep) else _model(kind.Config, defs)
    defs["step"] = _step(StepDocument, known, defs)
    undoing = {name: kind for name, kind in known.items() if kind.compensates}
    defs["compensation"] = _step(CompensationDocument, undoing, defs)
    defs["step"]["properties"]["compensate"] = {"anyOf": [{"$ref": "#/$defs/compensation"}, {"type": "null"}]}
    defs["workflow"] = _workflow({name: part for name, part in root.items() if name != "title"})
    return {"$schema": DIALECT, "title": "Workflow definition", **root, "$defs": dict(sorted(defs.items()))}


def _model(model: type[BaseModel], defs: JSON) -> JSON:
    """A model's schema; what it refers to goes into `defs`."""
    found = model.model_json_schema(by_alias=True)
    for name, part in found.pop("$defs", {}).items():
        defs[name] = _polished(part)
    return _polished(found)


def _polished(schema: JSON) -> JSON:
    """Without pydantic's titles; lists of steps hold steps."""
    schema.pop("title", None)
    for name, part in schema.get("properties", {}).items():
        part.pop("title", None)
        if name == "steps":
            part["items"] = _STEP
    return schema


def _step(model: type[BaseModel], known: Mapping[str, StepType], defs: JSON) -> JSON:
    """A step: its `type` says what its `config` is."""
    made = _model(model, defs)
    made["properties"]["type"] = {"enum": sorted(known)}
    made["allOf"] = [_rule(name, defs[f"config.{name}"]) for name in sorted(known)]
    return made


def _rule(name: str, config: JSON) -> JSON:
    then: JSON = {"properties": {"config": {"$ref": f"#/$defs/config.{name}"}}}
    if config.keys() & {"required", "oneOf", "anyOf"}:
        then["required"] = ["config"]
    return {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": then}


def _workflow(definition: JSON) -> JSON:
    return {
        "type": "object",
        "description": "A version of a workflow, and perhaps its tests.",
        "required": ["name", "version", "definition"],
        "properties": {
            "name": _NAME,
            "version": {"type": "string", "description": "SemVer."},
            "description": {"type": ["string", "null"]},
            "definition": definition,
            "tests": {"type": "array", "items": {"type": "object"}, "description": "For `esb workflows test`."},
        },
    }
