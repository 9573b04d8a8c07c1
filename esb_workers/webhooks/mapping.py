"""What message is made of a request: templates over `body headers query method`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from esb_workers.errors import ExpressionError, FieldError, Invalid
from esb_workers.expressions.templates import Template, compile_template

_TEXTS: Final = ("messageType", "messageId", "correlationId", "source", "orderingKey")

#: What the mapping says where it is silent: each kind of sender has its habits.
_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "standard": {"messageType": "${body.type}", "messageId": "${headers['webhook-id']}"},
    "github": {
        "messageType": "github.${headers['x-github-event']}"
        "${type(body) == map && has(body.action) && type(body.action) == string ? '.' + body.action : ''}",
        "messageId": "${headers['x-github-delivery']}",
    },
    "stripe": {"messageType": "stripe.${body.type}", "messageId": "${body.id}"},
}


def defaults(kind: str, name: str) -> dict[str, Any]:
    """The mapping of a verification kind where nothing else is said. Without a `messageType` one must be given."""
    return {"payload": "${body}", "source": f"/ingress/{name}", **_DEFAULTS.get(kind, {})}


class RequestMapping:
    """A compiled mapping. Immutable and safe to share between threads."""

    def __init__(self, written: Mapping[str, Any], kind: str, name: str) -> None:
        given = {key: value for key, value in written.items() if value is not None}
        whole = {**defaults(kind, name), **given}
        if "messageType" not in whole:
            raise Invalid([FieldError("mapping.messageType", f"is required with the verification {kind}")])
        self._parts = _compiled(whole)

    def message(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """The message's fields, as a sender of the bus would have written them. Raises Invalid naming each fault."""
        faults: list[FieldError] = []
        fields: dict[str, Any] = {}
        for name, template in self._parts.items():
            try:
                value = template.render(names)
                fields[name] = _headers(value) if name == "headers" else _text(value) if name in _TEXTS else value
            except (ExpressionError, ValueError) as error:
                told = error.detail if isinstance(error, ExpressionError) else str(error)
                faults.append(FieldError(f"mapping.{name}", told))
        if faults:
            raise Invalid(faults, code="mapping_failed")
        return {name: value for name, value in fields.items() if value is not None or name == "payload"}


def _compiled(whole: Mapping[str, Any]) -> dict[str, Template]:
    faults: list[FieldError] = []
    parts = {}
    for name, value in whole.items():
        try:
            parts[name] = compile_template(value, f"mapping.{name}")
        except Invalid as error:
            faults += error.errors
    if faults:
        raise Invalid(faults)
    return parts


def _text(value: Any) -> str | None:
    """A text or a whole number; null and nothing are absent."""
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("must come to a text")
    return value


def _headers(value: Any) -> dict[str, str]:
    found = {name: _text(item) for name, item in value.items()}
    return {name: text for name, text in found.items() if text is not None}
