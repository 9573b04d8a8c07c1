"""The front door's short way in: calls that accept work are answered without Flask's share of a request.

Matching the path, contexts, signals and hooks cost as much as storing a message. The few calls that come by the
thousand have fixed paths and need none of it. What a request goes through is the same and stands in one place:
`operations.perform` authenticates and validates, `problems` words what is refused, `finish` is told of every answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Response

from esb_api import problems
from esb_api.call import Call
from esb_api.operations import Operation, perform

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Front:
    """A WSGI application before Flask's: answers the front door's calls, and leaves the rest to `app`."""

    def __init__(
        self,
        app: Wsgi,
        call_class: type[Call],
        operations: Iterable[Operation],
        finish: Callable[[Call, Response], Response],
    ) -> None:
        self._app = app
        self._call_class = call_class
        self._finish = finish
        self._operations = {
            (operation.method, operation.path): operation
            for operation in operations
            if operation.cached and not operation.names
        }

    @property
    def paths(self) -> frozenset[bytes]:
        """The paths of its calls that wait for nothing but a shared commit; all are POSTs."""
        return frozenset(operation.path.encode() for operation in self._operations.values() if operation.swift)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) not in self._operations:
            return self._app(environ, start_response)
        return self.answer(environ)(environ, start_response)

    def answer(self, environ: dict[str, Any]) -> Response:
        """The answer to a request of one of its own operations."""
        call = self._call_class(environ)
        call.operation = operation = self._operations[environ["REQUEST_METHOD"], environ["PATH_INFO"]]
        try:
            response = perform(operation, call, [])
        except Exception as error:
            response = problems.answer_error(error)
        return self._finish(call, response)
