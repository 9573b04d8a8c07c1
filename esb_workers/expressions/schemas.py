"""JSON Schema 2020-12 for payloads and workflow inputs.

`pattern` and `patternProperties` run on re2, in linear time whatever the schema's author wrote; references
must stay inside the document, so that judging a value never reads anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import re2  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from esb_workers.errors import FieldError, Invalid

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_FAULTS = 20  # named of one value

#: Keywords whose values are data, and keywords whose keys are names: neither holds keywords of a schema itself.
_DATA = frozenset({"const", "enum", "default", "examples"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})

_QUIET = re2.Options()
_QUIET.log_errors = False


def compile_schema(schema: Any, path: str) -> Schema:
    """A schema ready to judge values. Raises Invalid naming each fault below `path`."""
    faults = list(_schema_faults(schema, path))
    if not faults:
        faults = [FieldError(at, message) for at, message in _keyword_faults(schema, path)]
    if faults:
        raise Invalid(faults)
    return Schema(schema)


class Schema:
    """A valid schema. Safe to share between threads."""

    def __init__(self, schema: Any) -> None:
        # An empty registry of its own: the default one would fetch what it does not know over the network.
        self._validator = _Validator(schema, registry=Registry())

    def faults(self, value: Any, path: str = "") -> list[FieldError]:
        """What is wrong with `value`, by path below `path`; empty when it fits. At most MAX_FAULTS."""
        found: list[FieldError] = []
        try:
            for error in self._validator.iter_errors(value):
                found.append(FieldError(_join(path, error.absolute_path), _short(error.message)))
                if len(found) == MAX_FAULTS:
                    break
        except RecursionError:
            found.append(FieldError(path, "the schema refers to itself without end"))
        except Unresolvable as error:
            found.append(FieldError(path, f"the schema has a reference that leads nowhere: {error}"))
        return found


def _schema_faults(schema: Any, path: str) -> Iterator[FieldError]:
    if not isinstance(schema, (dict, bool)):
        yield FieldError(path, "must be a JSON Schema: an object, true or false")
        return
    if isinstance(schema, dict) and str(schema.get("$schema", DIALECT)).rstrip("#") != DIALECT:
        yield FieldError(f"{path}.$schema", f"must be {DIALECT}")
        return
    try:
        # Without formats: the check of `regex` would judge patterns by Python's grammar instead of re2's.
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(formats=()))
    except SchemaError as error:
        yield FieldError(_join(path, error.absolute_path), _short(error.message))


def _keyword_faults(schema: Any, path: str) -> Iterator[tuple[str, str]]:
    resolver = _resolver(schema)
    for at, keyword, value, siblings in _keywords(schema, path):
        if keyword in ("$ref", "$dynamicRef") and not _resolves(resolver, str(value)):
            yield at, f"{value!r} is not within this document"
        elif keyword == "pattern" and (fault := _pattern_fault(value)):
            yield at, fault
        elif keyword == "patternProperties":
            yield from ((f"{at}.{p}", fault) for p in value if (fault := _pattern_fault(p)))
            if "unevaluatedProperties" in siblings:
                # jsonschema would run these patterns on Python's engine.
                yield at, "is not available together with unevaluatedProperties"


def _keywords(schema: Any, path: str) -> Iterator[tuple[str, str, Any, Mapping[str, Any]]]:
    """Each keyword of each schema in the document: path, name, value, and the schema it stands in."""
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _keywords(item, f"{path}[{index}]")
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        at = f"{path}.{keyword}"
        yield at, keyword, value, schema
        if keyword in _NAMED and isinstance(value, dict):
            for name, inner in value.items():
                yield from _keywords(inner, f"{at}.{name}")
        elif keyword not in _DATA:
            yield from _keywords(value, at)


def _resolver(schema: Any) -> Any:
    resource: Resource[Any] = Resource.from_contents(schema, default_specification=DRAFT202012)
    base = schema.get("$id", "") if isinstance(schema, dict) else ""
    return Registry().with_resource(base, resource).resolver(base)


def _resolves(resolver: Any, reference: str) -> bool:
    try:
        resolver.lookup(reference)
    except (Unresolvable, ValueError):
        return False
    return True


def _regex(pattern: str) -> Any:
    return re2.compile(pattern, options=_QUIET)


def _pattern_fault(pattern: Any) -> str | None:
    try:
        _regex(pattern)
    except re2.error as error:
        reason = error.args[0]
        return f"is not an re2 pattern: {reason.decode() if isinstance(reason, bytes) else reason}"
    return None


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _regex(pattern).search(value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        for pattern, inner in patterns.items():
            for name, item in value.items():
                if _regex(pattern).search(name):
                    yield from validator.descend(item, inner, path=name, schema_path=pattern)


def _additional_properties(validator: Any, inner: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    patterns = [_regex(pattern) for pattern in schema.get("patternProperties", {})]
    extra = [n for n in value if n not in schema.get("properties", {}) and not any(p.search(n) for p in patterns)]
    if inner is False and extra:
        yield ValidationError(f"additional properties are not allowed: {', '.join(map(repr, extra[:5]))}")
    elif inner is not False:
        for name in extra:
            yield from validator.descend(value[name], inner, path=name)


_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    },
)


def _short(message: str) -> str:
    """The message without the middle of a long value that it quotes."""
    return message if len(message) <= 300 else f"{message[:150]} … {message[-149:]}"


def _join(path: str, steps: Iterable[str | int]) -> str:
    for step in steps:
        path = f"{path}[{step}]" if isinstance(step, int) else f"{path}.{step}" if path else str(step)
    return path
