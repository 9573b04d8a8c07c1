"""What services answer, as text and as JSON that the bus can keep and pass on."""

from __future__ import annotations

import json


def text_of(body: bytes) -> str:
    """A body as text that PostgreSQL can hold: a receiver may answer anything."""
    return body.decode("utf-8", "replace").replace("\x00", "\ufffd")


def as_json(body: bytes) -> str:
    """The body as it is if it is JSON that the bus takes, else as a JSON string; null when empty."""
    text = text_of(body)
    if not text:
        return "null"
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    return text if "\\u0000" not in text else json.dumps(text)


def _refuse(constant: str) -> None:
    raise ValueError(constant)
