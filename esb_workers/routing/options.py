"""The options of a route that make more of a message than a copy for each destination: what they say, compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from esb_workers.expressions.cel import Expression, compile_expression
from esb_workers.expressions.templates import Template, compile_template
from esb_workers.routing.fields import Fields, fault, text_template, whole

#: Payloads in one collection, and parts of one message.
MAX_PARTS: Final = 10_000
#: The longest that a collection or a gap is waited for, and how long where nothing is said, milliseconds.
MAX_WAIT: Final = 7 * 86_400_000
DEFAULT_WAIT: Final = 86_400_000
#: A gap in a sequence is waited for so long where nothing is said, milliseconds.
DEFAULT_GAP: Final = 60_000


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """`split {items}`: one message becomes one for each item of a list."""

    items: Template


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """`aggregate {key, size, timeout, when}`: payloads of one key become one delivery, whose payload is their list.

    Complete with `size` payloads, with the first one for which `when` holds, or `timeout` ms after the first came.
    """

    key: Template
    timeout: int
    size: int | None = None
    when: Expression | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Resequence:
    """`resequence {key, sequence, timeout, first}`: deliveries of one key go out in the order of their numbers.

    A gap is waited for `timeout` ms. `first` is the number a key begins with, where that is known.
    """

    key: Template
    sequence: Template
    timeout: int
    first: int | None = None


def split(value: Any, path: str) -> Split:
    """Compile `split`. Raises Invalid."""
    fields = Fields.of(value, path)
    made = Split(items=fields.required("items", _list_template))
    fields.finish()
    return made


def aggregate(value: Any, path: str) -> Aggregate:
    """Compile `aggregate`. Raises Invalid."""
    fields = Fields.of(value, path)
    made = Aggregate(
        key=fields.optional("key", compile_template("${correlationId}", path), text_template),
        timeout=fields.optional("timeout", DEFAULT_WAIT, whole(1, MAX_WAIT)),
        size=fields.optional("size", None, whole(1, MAX_PARTS)),
        when=fields.optional("when", None, compile_expression),
    )
    if not fields.faults and all(value.get(name) is None for name in ("size", "timeout", "when")):
        fields.wrong("size", "is required unless there is a timeout or a when: a collection must come to an end")
    fields.finish()
    return made


def resequence(value: Any, path: str) -> Resequence:
    """Compile `resequence`. Raises Invalid."""
    fields = Fields.of(value, path)
    made = Resequence(
        key=fields.optional("key", compile_template("${correlationId}", path), text_template),
        sequence=fields.required("sequence", text_template),
        timeout=fields.optional("timeout", DEFAULT_GAP, whole(1, MAX_WAIT)),
        first=fields.optional("first", None, whole(-(2**53), 2**53)),
    )
    fields.finish()
    return made


def services(value: Any, path: str) -> Template:
    """`recipients` and `slip`: a template that gives a list of services, or a list of templates that give one each."""
    if isinstance(value, list):
        if not value or not all(isinstance(item, str) and item for item in value):
            raise fault(path, "must be a string such as `${payload.to}`, or a list of strings")
        return compile_template(value, path)
    return text_template(value, path)


def _list_template(value: Any, path: str) -> Template:
    if isinstance(value, list):
        return compile_template(value, path)
    return text_template(value, path)
