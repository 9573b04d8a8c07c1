"""Errors as `application/problem+json` (RFC 9457). The one place that translates.

An error of the bus's tree says what happened by its class and `code`. An error of Flask (no such path, no
such method) is put into the same form. Anything else is a defect: the caller gets a 500 that says nothing,
the log gets a line with the stack.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

import orjson
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from esb_api.call import current_call
from esb_workers import errors

CONTENT_TYPE: Final = "application/problem+json"

STATUS: Final[dict[type[errors.EsbError], int]] = {
    errors.Malformed: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.TooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.Invalid: 422,
    errors.QuotaExceeded: 429,
    errors.Unavailable: 503,
}

#: What to say of the errors that Flask finds before a view is reached; others say it themselves.
_DETAILS: Final = {404: "There is no such path.", 405: "The path does not take this method."}

log = logging.getLogger("esb.api")


def register(app: Flask) -> None:
    """Have `app` answer every error as a problem."""
    app.register_error_handler(Exception, answer_error)


def answer_error(error: Exception) -> Response:
    """The answer to a request that raised `error`."""
    if isinstance(error, HTTPException):
        return _of_flask(error)
    status = status_of(error)
    if status >= 500:
        _report(error, status)
    response = problem_response(problem(error))
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="esb"'
    if isinstance(error, errors.QuotaExceeded | errors.Unavailable):
        response.headers["Retry-After"] = str(error.retry_after)
    elif status == 503:
        response.headers["Retry-After"] = str(errors.Unavailable.retry_after)
    return response


def problem(error: Exception) -> dict[str, Any]:
    """`error` as a problem object; also the form of an error inside a larger answer."""
    status = status_of(error)
    if not isinstance(error, errors.EsbError) or status == 500:
        return _problem(status, "internal_error", HTTPStatus(status).phrase, None)
    title = (type(error).__doc__ or "").strip().splitlines()[0].rstrip(".")
    # What lies behind the API, and where, is the log's business and not the caller's.
    detail = "Try again in a moment." if status == 503 else error.detail
    body = _problem(status, error.specific_code, title, detail)
    if isinstance(error, errors.Invalid) and error.errors:
        body["errors"] = [fault._asdict() for fault in error.errors]
    return body | {key: value for key, value in error.extra.items() if key not in body}


def status_of(error: Exception) -> int:
    """The HTTP status for `error`."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem_response(body: dict[str, Any]) -> Response:
    """The answer that carries the problem object `body`."""
    return Response(orjson.dumps(body, default=str), body["status"], content_type=CONTENT_TYPE)


def _problem(status: int, code: str, title: str, detail: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {"type": f"urn:esb:problem:{code}", "title": title, "status": status}
    if detail:
        body["detail"] = detail
    return body | {"code": code, "requestId": current_call().request_id}


def _of_flask(error: HTTPException) -> Response:
    status = error.code or 500
    phrase = HTTPStatus(status).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    response = problem_response(_problem(status, code, phrase, _DETAILS.get(status, error.description)))
    for name, value in error.get_headers():
        if name != "Content-Type":
            response.headers[name] = value
    return response


def _report(error: Exception, status: int) -> None:
    level, stack = (logging.WARNING, None) if status == 503 else (logging.ERROR, error)
    call = current_call()
    fields = {"request_id": call.request_id, "method": call.method, "path": call.path}
    log.log(level, "%s: %s", type(error).__name__, error, exc_info=stack, extra=fields)
