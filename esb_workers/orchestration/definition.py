"""Reads a definition: every fault is found in one go, each with its path; a good one becomes a Program.

Two passes. The first reads each step by itself (fields, `config` of its type, templates, expressions). The
second looks at each list as a graph: targets, reachability, cycles that nothing slows.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from pydantic import ValidationError

from esb_workers.errors import FieldError, Invalid
from esb_workers.expressions.schemas import Schema, compile_schema
from esb_workers.orchestration import graph, language
from esb_workers.orchestration.document import (
    MAX_STEPS,
    CompensationDocument,
    DefinitionDocument,
    RetryPolicyDocument,
    StepDocument,
    field_errors,
    join,
)
from esb_workers.orchestration.model import Catch, Concurrency, Evaluate, Program, Step, StepList
from esb_workers.orchestration.steps import step_types
from esb_workers.orchestration.steps.base import StepType
from esb_workers.registry.retries import RetryPolicy

#: Handlers that `errorHandling.onError` may name besides a step.
HANDLERS: Final = ("log-error", "fail", "continue", "compensate")
MAX_DEPTH: Final = 10


def compile_definition(raw: Any, types: Mapping[str, StepType] | None = None) -> Program:
    """The program of a definition. Raises Invalid with every fault found."""
    compiler = _Compiler(types or step_types())
    program = compiler.definition(raw)
    if compiler.faults or program is None:
        raise Invalid(sorted(set(compiler.faults), key=compiler.faults.index))
    return program


class _Compiler:
    """Collects what is found on the way."""

    def __init__(self, types: Mapping[str, StepType]) -> None:
        self.types = types
        self.faults: list[FieldError] = []
        self.steps: dict[str, Step] = {}
        self.depth = 0
        self.count = 0

    def fault(self, path: str, message: str) -> None:
        self.faults.append(FieldError(path, message))

    def definition(self, raw: Any) -> Program | None:
        try:
            document = DefinitionDocument.model_validate(raw)
        except ValidationError as error:
            self.faults += field_errors(error, "definition")
            salvaged = self._salvaged(raw, error)
            if salvaged is None:
                return None
            document = salvaged
        where = "definition.steps"
        top = self.list(document.steps, where, sequential=document.flow == "sequential")
        program = Program(top, self.steps, document.variables)
        self._settings(program, document)
        self._check_on_error(program)
        for part in graph.all_lists(top):
            roots = [program.on_error] if part is top and program.on_error in top.steps else []
            self.faults += graph.faults(part, roots)
            if answered := tuple(name for name, step in part.steps.items() if step.kind.called_back(step.config)):
                program.callbacks = {**program.callbacks, **dict.fromkeys(part.steps, answered)}
        return program

    def _salvaged(self, raw: Any, error: ValidationError) -> DefinitionDocument | None:
        """A definition without what is wrong at its top, so that the faults of its steps are named as well."""
        rest = copy.deepcopy(raw) if isinstance(raw, dict) else {}
        for fault in error.errors():
            part: Any = rest
            for name in fault["loc"][:-1]:
                part = part.get(name) if isinstance(part, dict) else None
            if isinstance(part, dict) and fault["loc"]:
                part.pop(fault["loc"][-1], None)
        try:
            return DefinitionDocument.model_validate(rest)
        except ValidationError:
            return None

    def _settings(self, program: Program, document: DefinitionDocument) -> None:
        program.timeout = document.timeout
        program.relaxed = document.durability == "relaxed"
        program.on_error = document.error_handling.on_error
        program.pauses_exhausted = document.error_handling.on_exhausted == "pause"
        program.retry = retry_policy(document.error_handling.retry_policy)
        if "output" in document.model_fields_set:
            program.output = self.template(document.output, "definition.output")
        program.input_schema = self._schema(document.input_schema, "definition.inputSchema")
        program.output_schema = self._schema(document.output_schema, "definition.outputSchema")

        program.rate = document.rate_per_second
        if (wanted := document.concurrency) is not None:
            key = None if wanted.key is None else self.expression(wanted.key, "definition.concurrency.key")
            program.concurrency = Concurrency(key, wanted.limit, wanted.on_limit)

    def _schema(self, schema: Any, path: str) -> Schema | None:
        if schema is None:
            return None
        try:
            return compile_schema(schema, path)
        except Invalid as error:
            self.faults += error.errors
            return None

    def _check_on_error(self, program: Program) -> None:
        if program.on_error not in HANDLERS and program.on_error not in program.top.steps:
            handlers = ", ".join(HANDLERS)
            self.fault(
                "definition.errorHandling.onError",
                f"{program.on_error!r} is neither a step of this definition nor one of {handlers}",
            )

    def list(self, raw: Sequence[Any], where: str, *, sequential: bool) -> StepList:
        made = StepList(where, sequential)
        if self.depth >= MAX_DEPTH:
            self.fault(where, f"steps are nested deeper than {MAX_DEPTH} lists")
            return made
        self.depth += 1
        for index, item in enumerate(raw):
            step = self.step(item, f"{where}[{index}]")
            if step is not None:
                made.steps.setdefault(step.id, step)
        self.depth -= 1
        if sequential:
            ids = list(made.steps)
            for before, after in pairwise(ids):
                made.steps[before].following = after
        return made

    def step(self, raw: Any, where: str) -> Step | None:
        self.count += 1
        if self.count == MAX_STEPS + 1:
            self.fault(where, f"a definition has at most {MAX_STEPS} steps")
        try:
            document = StepDocument.model_validate(raw)
        except ValidationError as error:
            self.faults += field_errors(error, where)
            return self._placeholder(raw, where)
        kind = self._kind(document.type, where)
        step = Step(document.id, document.type, kind, where, document.name, timeout=document.timeout)
        self._register(step)
        step.on_success, step.on_failure = document.on_success, document.on_failure
        step.catches = tuple(Catch(tuple(c.errors), c.next, c.result_path) for c in document.catch)
        step.retry = retry_policy(document.retry_policy)
        if document.condition is not None:
            step.condition = self.expression(document.condition, f"{where}.condition")
        if type(kind) is not StepType:
            self._configure(step, document.config)
        if document.compensate is not None:
            step.compensate = self._compensation(document.compensate, step)
        return step

    def _register(self, step: Step) -> None:
        if (first := self.steps.setdefault(step.id, step)) is not step:
            self.fault(f"{step.where}.id", f"{step.id!r} is already the id of {first.where}")

    def _placeholder(self, raw: Any, where: str) -> Step | None:
        """Stands in for a step with faults, so that those who point at it are not blamed as well."""
        if not isinstance(raw, dict) or not isinstance(raw.get("id"), str):
            return None
        step = Step(raw["id"], "", StepType(), where)
        self._register(step)
        for name in ("onSuccess", "onFailure"):
            if isinstance(raw.get(name), str):
                setattr(step, "on_success" if name == "onSuccess" else "on_failure", raw[name])
        return step

    def _kind(self, name: str, where: str) -> StepType:
        kind = self.types.get(name)
        if kind is None:
            self.fault(f"{where}.type", f"unknown step type {name!r}; there are {', '.join(sorted(self.types))}")
            return StepType()
        return kind

    def _configure(self, step: Step, raw: Mapping[str, Any]) -> None:
        where = f"{step.where}.config"
        try:
            model = step.kind.Config.model_validate(raw)
        except ValidationError as error:
            self.faults += field_errors(error, where)
            step.kind = StepType()  # its jumps are unknown: nothing is said about them
            return
        step.config = step.kind.compile(model, _At(self, where))
        step.lists = tuple(step.kind.lists(step.config))

    def _compensation(self, raw: Mapping[str, Any], of: Step) -> Step | None:
        where = f"{of.where}.compensate"
        try:
            document = CompensationDocument.model_validate(raw)
        except ValidationError as error:
            self.faults += field_errors(error, where)
            return None
        kind = self._kind(document.type, where)
        step = Step(
            document.id or f"{of.id}:compensate", document.type, kind, where, document.name, timeout=document.timeout
        )
        step.retry = retry_policy(document.retry_policy)
        if type(kind) is StepType:
            return step
        if not kind.compensates:
            self.fault(f"{where}.type", f"a step of type {document.type!r} cannot compensate")
            return step
        self._configure(step, document.config)
        return step

    def template(self, value: Any, path: str) -> Evaluate:
        return self._compiled(language.template, value, path)

    def url_text(self, value: str, path: str) -> Evaluate:
        return self._compiled(language.url_text, value, path)

    def expression(self, text: str, path: str) -> Evaluate:
        return self._compiled(language.expression, text, path)

    def _compiled(self, how: Any, source: Any, path: str) -> Evaluate:
        try:
            return how(source, path)  # type: ignore[no-any-return]
        except Invalid as error:
            self.faults += error.errors
            return lambda names: None


class _At:
    """The compiler, seen from the `config` of one step."""

    def __init__(self, compiler: _Compiler, where: str) -> None:
        self._compiler = compiler
        self._where = where

    def template(self, value: Any, path: str) -> Evaluate:
        return self._compiler.template(value, join(self._where, [path]) if path else self._where)

    def url_text(self, value: str, path: str) -> Evaluate:
        return self._compiler.url_text(value, join(self._where, [path]))

    def expression(self, text: str, path: str) -> Evaluate:
        return self._compiler.expression(text, join(self._where, [path]))

    def steps(self, raw: Sequence[Any], path: str) -> StepList:
        return self._compiler.list(raw, join(self._where, [path]), sequential=True)

    def fault(self, path: str, message: str) -> None:
        self._compiler.fault(join(self._where, [path]), message)


def retry_policy(document: RetryPolicyDocument | None) -> RetryPolicy | None:
    """The policy a document describes."""
    if document is None:
        return None
    # A schedule is exact unless its author asks for jitter: it replaces the defaults of all the rest.
    exact = bool(document.schedule) and "jitter" not in document.model_fields_set
    return RetryPolicy(
        document.max_retries,
        document.backoff_strategy,
        document.initial_delay,
        document.max_delay,
        0.0 if exact else document.jitter,
        tuple(document.schedule) or None,
    )
