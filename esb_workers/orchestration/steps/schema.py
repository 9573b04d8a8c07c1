"""Step types whose `config` is described by a JSON Schema: functions, and what workers elsewhere have registered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, NamedTuple

from pydantic import ConfigDict

from esb_workers.errors import Invalid
from esb_workers.expressions.schemas import Schema, compile_schema
from esb_workers.orchestration.failures import VALIDATION_ERROR, Failure, StepFailed
from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import At, Call, Config, Outcome, StepType

#: The one field of `config` that is not the function's.
RESULT_PATH: Final = "resultPath"


class OpenConfig(Config):
    """Any object: its schema is not a model's."""

    model_config = ConfigDict(extra="allow")


class _Compiled(NamedTuple):
    values: Evaluate
    result_path: str | None


class SchemaStep(StepType):
    """A type known by its name, its queue and its schema. It runs where its code is."""

    Config: ClassVar[type[Config]] = OpenConfig
    effect: ClassVar[bool] = True
    compensates: ClassVar[bool] = True

    def __init__(self, name: str, schema: Mapping[str, Any], queue: str | None = None) -> None:
        self.name = name
        self.schema = dict(schema)
        self.queue = queue
        self._values = compile_schema(self.schema, name)

    @property
    def config_schema(self) -> dict[str, Any]:
        """With `resultPath`, which every such step takes."""
        fields = {**self.schema.get("properties", {}), RESULT_PATH: {"type": ["string", "null"]}}
        return {**self.schema, "properties": fields}

    def compile(self, config: OpenConfig, at: At) -> _Compiled:
        raw = dict(config.model_extra or {})
        path = raw.pop(RESULT_PATH, None)
        if path is not None and (not isinstance(path, str) or not path or path.startswith(".")):
            at.fault(RESULT_PATH, "must be a dotted path in the context")
            path = None
        for where, message in _faults(self._values, raw):
            at.fault(where, message)
        return _Compiled(at.template(raw, ""), path)

    def prepare(self, call: Call) -> Any:
        given = call.config.values(call.names)
        if faults := self._values.faults(given, "config"):
            raise StepFailed(Failure(VALIDATION_ERROR, f"{faults[0].path} {faults[0].message}"))
        return given

    def run(self, call: Call) -> Outcome:
        raise StepFailed(Failure(VALIDATION_ERROR, f"the code of {self.name} is not installed here"))


def remote(name: str, schema: Mapping[str, Any], queue: str | None) -> SchemaStep | None:
    """A registered type; None if its schema is none that this release reads."""
    try:
        return SchemaStep(name, schema, queue)
    except Invalid:
        return None


def _faults(schema: Schema, raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong whatever templates come to: nothing is said about a value that is or holds one."""
    open_ = set(_templates(raw, ""))
    for path, message in schema.faults(raw):
        if not any(template == path or template.startswith((f"{path}.", f"{path}[")) for template in open_ if path):
            yield path, message


def _templates(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, str) and "${" in value:
        yield path
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _templates(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _templates(inner, f"{path}[{index}]")
