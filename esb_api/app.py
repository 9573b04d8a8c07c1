"""The Flask application: resources, problems, and what every answer carries."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, cast

from flask import Flask, Response
from flask.sessions import SessionInterface, SessionMixin

from esb_api import docs, limits, problems
from esb_api.auth import authenticate
from esb_api.call import Call, current_call
from esb_api.context import Api, open_api
from esb_api.front import Front
from esb_api.operations import AnyId, IdConverter, TextConverter, WordConverter, declared
from esb_api.resources import RESOURCES
from esb_workers import logs
from esb_workers.errors import EsbError, Unavailable
from esb_workers.registry.clients import Client
from esb_workers.registry.quotas import nearest_to_empty
from esb_workers.settings import Settings

log = logging.getLogger("esb.requests")


class NoSession(SessionInterface):
    """No cookies: every request authenticates itself."""

    def open_session(self, app: Flask, request: Any) -> SessionMixin | None:
        """No session, and nothing looked for."""
        return cast(SessionMixin, _EMPTY)

    def is_null_session(self, obj: object) -> bool:
        """Always: there is nothing to save."""
        return True


class _Empty(dict[str, Any], SessionMixin):
    """What Flask holds in place of a session."""


_EMPTY = _Empty()


def create_app(settings: Settings) -> Flask:
    """The application of one process. Connects to nothing yet; make it after any fork."""
    return make_app(open_api(settings))


def make_app(api: Api) -> Flask:
    """The application over an open context."""
    app = Flask("esb_api", static_folder=None)
    app.session_interface = NoSession()
    call_class: type[Call] = type("Call", (Call,), {"api": api})
    app.request_class = call_class
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False  # `//services` is a path that does not exist, not a redirect
    app.extensions["esb"] = api
    problems.register(app)
    app.url_map.converters["id"] = IdConverter
    app.url_map.converters["text"] = TextConverter
    app.url_map.converters["word"] = WordConverter
    for resource in RESOURCES:
        app.register_blueprint(resource)
    docs.register(app)
    app.register_error_handler(404, _no_such_path(AnyId(declared(app))))
    app.after_request(lambda response: finish(current_call(), response))
    app.wsgi_app = Front(app.wsgi_app, call_class, declared(app), finish)  # type: ignore[method-assign]
    return app


def _no_such_path(any_id: AnyId) -> Callable[[Exception], Response]:
    """Answers a path that does not exist. Where only an id in it is malformed, authentication comes first."""

    def answer(error: Exception) -> Response:
        call = current_call()
        operation = any_id.operation(call.path, call.method)
        if operation is not None:
            call.operation = operation
            try:
                authenticate(call, operation.access, cached=False)
            except EsbError as refusal:
                return problems.answer_error(refusal)
        return problems.answer_error(error)

    return answer


def finish(call: Call, response: Response) -> Response:
    """Headers every answer carries, the request's figures, and its line in the log."""
    headers = response.headers
    headers.add("X-Request-ID", call.request_id)
    if call.known_correlation_id is not None:
        headers.add("X-Correlation-ID", call.known_correlation_id)
    _account(call, response)
    operation = call.operation.name if call.operation else "none"
    seconds = time.perf_counter() - call.started
    call.api.metrics.observe(operation, call.method, response.status_code, seconds)
    _log(call, operation, response, seconds)
    return response


def _account(call: Call, response: Response) -> None:
    """Tell a client what is left of its quota, and count a request that was refused it."""
    client = call.principal.client
    if client is None:
        return
    if call.operation is not None and call.operation.cached and response.status_code >= 400:
        call.api.rejections.add(client.id)
    if call.limits is None and client.limits:
        call.limits = _nearest(call, client)
    if call.limits is not None:
        limits.add_headers(response, call.limits)


def _nearest(call: Call, client: Client) -> limits.RateLimit | None:
    try:
        return nearest_to_empty(call.api.quotas.windows(client.id, client.limits))
    except Unavailable:
        return None  # the answer stands; only what is left cannot be told


def _log(call: Call, operation: str, response: Response, seconds: float) -> None:
    logs.event(
        log,
        "request",
        operation=operation,
        method=call.method,
        path=call.path,
        status=response.status_code,
        durationMs=round(seconds * 1000, 3),
        requestId=call.request_id,
        correlationId=call.known_correlation_id,
        clientId=call.principal.client_id,
    )
