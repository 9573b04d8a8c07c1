"""Answers: JSON out of a model, and the headers that go with creation and versions."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response
from pydantic import BaseModel

from esb_api.etag import etag_of

JSON = "application/json"


def to_json(value: Any) -> bytes:
    """A model (by alias), or plain data, as JSON."""
    if isinstance(value, BaseModel):
        return value.__pydantic_serializer__.to_json(value, by_alias=True)
    return orjson.dumps(value)


def answer(value: Any, status: int = 200, *, etag: int | None = None, **headers: str) -> Response:
    """`value` as JSON. Header names in `headers` are written with `_` for `-`."""
    response = Response(to_json(value), status, content_type=JSON)
    if etag is not None:
        response.headers["ETag"] = etag_of(etag)
    for name, text in headers.items():
        response.headers[name.replace("_", "-")] = text
    return response


def created(value: Any, location: str, *, etag: int | None = None, **headers: str) -> Response:
    """201 with the whole resource, and where it is."""
    return answer(value, 201, etag=etag, Location=location, **headers)


def secret(response: Response) -> Response:
    """Mark an answer that shows a secret once: no cache may keep it."""
    response.headers["Cache-Control"] = "no-store"
    return response


def no_content() -> Response:
    """204."""
    return Response(status=204)
