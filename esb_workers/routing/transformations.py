"""The built-in transformations. Each function compiles the config of one type to a step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from esb_workers.errors import FieldError, Invalid, PayloadInvalid, TransformationError
from esb_workers.expressions.schemas import compile_schema
from esb_workers.expressions.templates import Template, compile_template
from esb_workers.routing.paths import MISSING, NoPlace, Words, get, parse_path, put, remove
from esb_workers.routing.transform import Form, Step

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")

Config = Mapping[str, Any]


def template(config: Config, path: str) -> Step:
    """`template {output}`: the payload becomes `output`."""
    _only(config, path, {"output"})
    if "output" not in config:
        raise Invalid([FieldError(f"{path}.output", "is required")])
    output = compile_template(config["output"], f"{path}.output")
    return lambda form: form.with_payload(output.render(form.scope))


def rename(config: Config, path: str) -> Step:
    """`rename {fields: {from: to}}`, all at once, so that two fields may swap; what is absent stays so."""
    pairs: list[tuple[Words, Words]] = []
    for source, target in _fields(config, path).items():
        pairs.append((parse_path(source, f"{path}.fields"), parse_path(target, f"{path}.fields.{source}")))

    def step(form: Form) -> Form:
        payload = form.payload
        moved = [(target, get(form.payload, source)) for source, target in pairs]
        for source, _ in pairs:
            payload = remove(payload, source)
        return form.with_payload(_put_all(payload, [(words, value) for words, value in moved if value is not MISSING]))

    return step


def pick(config: Config, path: str) -> Step:
    """`pick {fields []}`: nothing but these fields; what is absent stays so."""
    paths = _paths(config, path)

    def step(form: Form) -> Form:
        if not isinstance(form.payload, dict):
            raise TransformationError("the payload is not an object")
        found = [(words, get(form.payload, words)) for words in paths]
        return form.with_payload(_put_all({}, [(words, value) for words, value in found if value is not MISSING]))

    return step


def drop(config: Config, path: str) -> Step:
    """`drop {fields []}`: all but these fields."""
    # From the back, so that leaving out an element of a list does not move those named after it.
    paths = sorted(_paths(config, path), key=lambda words: [w.zfill(10) for w in words], reverse=True)

    def step(form: Form) -> Form:
        payload = form.payload
        for words in paths:
            payload = remove(payload, words)
        return form.with_payload(payload)

    return step


def set_fields(config: Config, path: str) -> Step:
    """`set {fields: {path: template}}`: every value is made from the payload as it was before."""
    fields = _templates(config, path)
    return lambda form: form.with_payload(_put_all(form.payload, _rendered(fields, form)))


def default(config: Config, path: str) -> Step:
    """`default {fields: {path: value}}`: fields that are absent; null is a value and stays."""
    fields = _templates(config, path)

    def step(form: Form) -> Form:
        absent = [field for field in fields if get(form.payload, field[0]) is MISSING]
        return form.with_payload(_put_all(form.payload, _rendered(absent, form)))

    return step


def headers(config: Config, path: str) -> Step:
    """`headers {set {}, drop []}`: names compare without case; a value that is no string goes as JSON."""
    _only(config, path, {"set", "drop"})
    wanted, unwanted = config.get("set") or {}, config.get("drop") or []
    _check_header_names(wanted, unwanted, path)
    values = {name: compile_template(value, f"{path}.set.{name}") for name, value in wanted.items()}
    replaced = {name.lower() for name in (*wanted, *unwanted)}

    def step(form: Form) -> Form:
        made = {name: _header_value(name, value.render_text(form.scope)) for name, value in values.items()}
        kept = {name: value for name, value in form.headers.items() if name.lower() not in replaced}
        return replace(form, headers=kept | made)

    return step


def validate(config: Config, path: str) -> Step:
    """`validate {schema}`: the payload must fit a JSON Schema (2020-12)."""
    _only(config, path, {"schema"})
    if "schema" not in config:
        raise Invalid([FieldError(f"{path}.schema", "is required")])
    schema = compile_schema(config["schema"], f"{path}.schema")

    def step(form: Form) -> Form:
        faults = schema.faults(form.payload, "payload")
        if faults:
            raise PayloadInvalid("; ".join(f"{fault.path}: {fault.message}" for fault in faults))
        return form

    return step


def _only(config: Config, path: str, allowed: set[str]) -> None:
    faults = [FieldError(f"{path}.{name}", "there is no such field") for name in config if name not in allowed]
    if faults:
        raise Invalid(faults)


def _fields(config: Config, path: str) -> dict[str, Any]:
    _only(config, path, {"fields"})
    fields = config.get("fields")
    if not isinstance(fields, dict) or not fields:
        raise Invalid([FieldError(f"{path}.fields", "must be an object that is not empty")])
    return fields


def _paths(config: Config, path: str) -> list[Words]:
    _only(config, path, {"fields"})
    fields = config.get("fields")
    if not isinstance(fields, list) or not fields:
        raise Invalid([FieldError(f"{path}.fields", "must be a list that is not empty")])
    return [parse_path(field, f"{path}.fields[{index}]") for index, field in enumerate(fields)]


def _templates(config: Config, path: str) -> list[tuple[Words, Template]]:
    compiled: list[tuple[Words, Template]] = []
    faults: list[FieldError] = []
    for name, value in _fields(config, path).items():
        try:
            compiled.append((parse_path(name, f"{path}.fields"), compile_template(value, f"{path}.fields.{name}")))
        except Invalid as error:
            faults += error.errors
    if faults:
        raise Invalid(faults)
    return compiled


def _rendered(fields: list[tuple[Words, Template]], form: Form) -> list[tuple[Words, Any]]:
    scope = form.scope
    return [(words, value.render(scope)) for words, value in fields]


def _put_all(payload: Any, values: list[tuple[Words, Any]]) -> Any:
    for words, value in values:
        try:
            payload = put(payload, words, value)
        except NoPlace as error:
            raise TransformationError(f"{'.'.join(words)}: {error}") from None
    return payload


def _check_header_names(wanted: Any, unwanted: Any, path: str) -> None:
    if not isinstance(wanted, dict):
        raise Invalid([FieldError(f"{path}.set", "must be an object")])
    if not isinstance(unwanted, list):
        raise Invalid([FieldError(f"{path}.drop", "must be a list")])
    if not wanted and not unwanted:
        raise Invalid([FieldError(path, "needs set or drop")])
    named = [(name, f"{path}.set.{name}") for name in wanted]
    named += [(name, f"{path}.drop[{index}]") for index, name in enumerate(unwanted)]
    faults = [
        FieldError(at, "must be a header name")
        for name, at in named
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name)
    ]
    if faults:
        raise Invalid(faults)


def _header_value(name: str, text: str) -> str:
    # The rest of Unicode is encoded on the wire, but a line break would start another header.
    if any((character < " " and character != "\t") or character == "\x7f" for character in text):
        raise TransformationError(f"the value of header {name} has a control character")
    return text
