"""Endpoints, declared once: routing, authorisation, validation and the OpenAPI document read the same lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from flask import Blueprint, Flask, Response
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, Map, Rule

from esb_api.auth import authenticate
from esb_api.call import Call, current_call
from esb_api.params import AnyQuery, NoQuery, read_query
from esb_api.patches import replaced
from esb_api.principals import Access
from esb_api.schemas.base import Body, Query
from esb_api.validation import validated
from esb_workers import logs
from esb_workers.errors import EsbError, FieldError, Invalid, NotFound, Unavailable
from esb_workers.store.engine import StaleRevision

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
#: How often a call is done anew because registrations changed while it ran.
ATTEMPTS: Final = 5
#: Path parameters that are names of resources, which hold no slash.
_WORDS: Final = frozenset({"service"})


class IdConverter(BaseConverter):
    """An id in a path. A malformed one matches no path, and is so 404 like an unknown one."""

    regex = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"

    def to_python(self, value: str) -> str:
        """The canonical form."""
        return value.lower()


class TextConverter(BaseConverter):
    """A name that callers made up: any visible characters, so also `/`, which arrives decoded.

    It does not end in what is done with a message: `GET /routing/messages/7/replay` is a method that this path lacks,
    and not the message `7/replay`.
    """

    regex = r".+?(?<!/replay)(?<!/cancel)(?<!/payload)"
    part_isolating = False


class WordConverter(BaseConverter):
    """A name without slashes: what stands behind one is another path."""

    regex = "[^/]+"


class View(Protocol):
    """A view: `(call, *path values, body=…, query=…) -> Response`."""

    __name__: str
    __doc__: str | None
    __call__: Callable[..., Response]


class NoBody(Body):
    """A POST that needs no body takes none, or `{}`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One method on one path."""

    method: Method
    path: str
    tag: str
    view: View
    access: Access
    #: Model of the JSON body.
    body: type[Body] | None
    #: True: the body is a merge patch of `body`. The view gets it as it is, to merge it into what is stored.
    #: A PATCH that is none (`…/status`) may be sent as one all the same: its body reads as the change it is.
    merges: bool
    #: True: the body may be absent, and then reads as `{}`.
    body_optional: bool
    #: Other media types than JSON, for a view that reads `call.raw_body` itself: type → JSON Schema.
    media: Mapping[str, Mapping[str, Any]]
    query: type[Query]
    #: Success status → model of the answer (None: no body; a string: a media type that is not JSON).
    answers: Mapping[int, type[BaseModel] | str | None]
    #: Statuses of refusals beyond those that follow from the rest (401, 403, 404 for `{id}`, 422 …).
    refusals: tuple[int, ...]
    #: Request headers the call honours, by name (documented in `openapi.HEADERS`).
    headers: tuple[str, ...]
    #: Body limit as a multiple of `ESB_MAX_BODY_BYTES`.
    size: int
    #: True for the front door's calls, which accept work: a remembered client record will do, because their
    #: transaction refuses a stale revision, and what is refused to a client counts as rejected.
    cached: bool
    #: True: the view gets the parsed JSON and checks it itself; `body` then only documents it.
    raw: bool = False
    #: True: the call waits for nothing but the commit it shares with others, unless its headers say otherwise.
    swift: bool = False
    #: Path parameters that are not UUIDs.
    texts: frozenset[str] = field(default=frozenset())

    @property
    def name(self) -> str:
        """The view's name: what metrics and logs call the operation."""
        return self.view.__name__

    @property
    def names(self) -> list[str]:
        """Names of the path parameters, in order."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def summary(self) -> str:
        """The first line of the view's docstring."""
        return (self.view.__doc__ or "").strip().partition("\n")[0]


class Resource(Blueprint):
    """The endpoints of one noun."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag, __name__)
        self.tag = tag
        self.operations: list[Operation] = []

    def operation(
        self,
        method: Method,
        path: str,
        *,
        access: Access,
        body: type[Body] | None = None,
        merges: bool | None = None,
        body_optional: bool = False,
        media: Mapping[str, Mapping[str, Any]] | None = None,
        query: type[Query] = NoQuery,
        answers: Mapping[int, type[BaseModel] | str | None],
        refusals: tuple[int, ...] = (),
        headers: tuple[str, ...] = (),
        size: int = 1,
        cached: bool = False,
        raw: bool = False,
        swift: bool = False,
        texts: tuple[str, ...] = (),
    ) -> Callable[[View], View]:
        """Declare the decorated view as the operation `method` on `path` (`/services/{id}`)."""

        def declare(view: View) -> View:
            no_body = method == "POST" and body is None and not media
            operation = Operation(
                method=method, path=path, tag=self.tag, view=view, access=access, query=query, answers=answers,
                body=NoBody if no_body else body, merges=method == "PATCH" if merges is None else merges,
                body_optional=body_optional or no_body, media=media or {},
                refusals=refusals, headers=headers, size=size, cached=cached, raw=raw, swift=swift,
                texts=frozenset(texts),
            )  # fmt: skip
            self.operations.append(operation)
            self.add_url_rule(
                _rule(operation), f"{method.lower()}_{view.__name__}", _endpoint(operation), methods=[method]
            )
            return view

        return declare


def _rule(operation: Operation) -> str:
    """The path in Flask's form."""

    def part(match: re.Match[str]) -> str:
        if match[1] in _WORDS:
            return f"<word:{match[1]}>"
        return f"<text:{match[1]}>" if match[1] in operation.texts else f"<id:{match[1]}>"

    return re.sub(r"{(\w+)}", part, operation.path)


def _endpoint(operation: Operation) -> Callable[..., Response]:
    names = operation.names

    def endpoint(**values: str) -> Response:
        call = current_call()
        call.operation = operation
        return perform(operation, call, [values[name] for name in names])

    return endpoint


def perform(operation: Operation, call: Call, values: list[str]) -> Response:
    """Perform the call; anew if what it decided by has changed meanwhile.

    A cached record may also have *refused* what a change has just allowed, so that a refusal stands only
    if the cache proves to be current.
    """
    for _ in range(ATTEMPTS):
        try:
            return _perform(operation, call, values)
        except StaleRevision:
            call.api.revisions.refresh()
            call.api.catalogue.refresh()
        except EsbError:
            known = call.principal.known if operation.cached else None
            if known is None or call.api.revisions.hold(known):
                raise
    raise Unavailable("the registrations change faster than they can be looked up")


def _perform(operation: Operation, call: Call, values: list[str]) -> Response:
    logs.annotate(request_id=call.request_id, correlation_id=call.correlation_id)
    authenticate(call, operation.access, cached=operation.cached)
    if any("\0" in value for value in values):
        raise NotFound
    inputs: dict[str, Any] = {}
    if operation.query is AnyQuery:
        pass
    elif operation.query is not NoQuery:
        inputs["query"] = read_query(operation.query, call.args)
    elif call.environ.get("QUERY_STRING"):
        read_query(NoQuery, call.args)
    if operation.body is not None:
        body = _read_body(operation, call)
        if operation.body is not NoBody:
            inputs["body"] = body
    return operation.view(call, *values, **inputs)


def _read_body(operation: Operation, call: Call) -> Any:
    assert operation.body is not None
    limit = call.api.settings.max_body_bytes * operation.size
    value = call.json_body(limit, optional=operation.body_optional, patch=operation.method == "PATCH")
    if operation.merges and not isinstance(value, dict):
        raise Invalid([FieldError("", "must be an object")])
    if operation.merges or operation.raw:
        return value
    return (replaced if operation.method == "PUT" else validated)(operation.body, value)


class AnyId:
    """Finds the operation of a path whose ids are malformed: who may not make the call is told that first."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = [operation for operation in operations if operation.names]
        self._map = Map(
            [
                Rule(_rule(operation).replace("<id:", "<string:"), endpoint=number, methods=[operation.method])
                for number, operation in enumerate(self._operations)
            ],
            converters={"text": TextConverter, "word": WordConverter},
            merge_slashes=False,
        )

    def operation(self, path: str, method: str) -> Operation | None:
        """The operation that the request would be, were its ids well formed."""
        try:
            return self._operations[int(self._map.bind("").match(path, method)[0])]
        except HTTPException:
            return None


def declared(app: Flask) -> list[Operation]:
    """Every operation of the application, in the order of declaration."""
    blueprints = app.blueprints.values()
    return [operation for resource in blueprints if isinstance(resource, Resource) for operation in resource.operations]
