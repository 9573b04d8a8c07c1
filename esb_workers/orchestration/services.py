"""Calls of services: an instance is chosen, called once, and its circuit told how that went."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from esb_workers.orchestration.failures import FORBIDDEN, SERVICE_UNAVAILABLE, VALIDATION_ERROR, Failure
from esb_workers.orchestration.world import Answer, Held, ServiceReply, ServiceRequest
from esb_workers.registry import selection
from esb_workers.registry.choice import Chooser, Chosen, NotNow
from esb_workers.registry.instances import DEFAULT_TIMEOUT, Directory, Instance
from esb_workers.registry.limits import LIMIT_REACHED, Limits
from esb_workers.registry.retries import Answered, nearest, parse_retry_after
from esb_workers.registry.selection import Destination
from esb_workers.store.engine import Database
from esb_workers.transport import signing
from esb_workers.transport.adapter import PreparedRequest
from esb_workers.transport.errors import CallFailed, RequestRefused
from esb_workers.transport.http import HttpCaller, Response
from esb_workers.transport.transports import Transports

USER_AGENT: Final = "python-esb"
#: Largest answer that can become part of a context, bytes.
MAX_ANSWER: Final = 1 << 20
#: How much of an answer that is an error its handlers see, characters.
MAX_ERROR_BODY: Final = 4096
#: Levels of an answer that counts as JSON; what is deeper is taken as text.
MAX_DEPTH: Final = 64
#: When a service has its share of this process's slots, the next call looks again after this, milliseconds.
BUSY_RETRY: Final = 50
#: What a run waits for; anything else that keeps a service from being called fails the attempt.
_HELD: Final = frozenset({selection.MAINTENANCE, selection.CIRCUIT_OPEN, LIMIT_REACHED})
#: Headers of a step or a service that would break what the bus promises about a call.
_WEB: Final = frozenset({"http", "https"})
_SEALED: Final = frozenset({"idempotency-key", "webhook-id", "webhook-timestamp", "webhook-signature"})


class Bulkhead:
    """At most a share of this process's calls at one service: a dead one must not take all slots."""

    def __init__(self, share: int) -> None:
        self._share = max(1, share)
        self._under_way: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def place(self, name: str) -> Iterator[bool]:
        """Whether there is a place; it is given back at the end of the block."""
        with self._lock:
            taken = self._under_way[name] < self._share
            self._under_way[name] += taken
        try:
            yield taken
        finally:
            with self._lock:
                self._under_way[name] -= taken
                if not self._under_way[name]:
                    del self._under_way[name]


class ServiceCaller:
    """The port `world.Services` over registry and HTTP. One a process; safe for threads."""

    def __init__(
        self,
        database: Database,
        directory: Directory,
        chooser: Chooser,
        http: HttpCaller,
        *,
        share: int,
        others: Transports | None = None,
    ) -> None:
        self._database = database
        self._directory = directory
        self._chooser = chooser
        self._http = http
        self._others = others  # for endpoints that are not HTTP
        self._limits = Limits(database, directory)
        self._bulkhead = Bulkhead(share)

    def call(self, request: ServiceRequest) -> ServiceReply:
        """One attempt at one instance. Raises Unavailable when the registrations cannot be read."""
        try:
            destination = Destination.parse(request.service)
        except ValueError as error:
            return Failure(VALIDATION_ERROR, f"serviceName {request.service!r}: {error}")
        if request.allowed is not None and not {destination.name, "*"} & set(request.allowed):
            return Failure(FORBIDDEN, f"this client may not use the service {destination.name}")
        self._directory.refresh(self._database, request.revision)
        with self._bulkhead.place(destination.name) as free:
            if not free:
                return Held("busy", BUSY_RETRY)
            longest = request.timeout_ms or self._longest(destination)
            with self._limits.place(destination.name, longest) as refusal:
                chosen = refusal or self._chooser.choose(destination, longest)
                if isinstance(chosen, NotNow):
                    return _not_now(chosen, destination.name)
                return self._attempt(request, chosen)

    def longest(self, service: str, revision: int) -> int:
        """What the registrations give an attempt at most, milliseconds. Raises Unavailable as `call` does."""
        try:
            destination = Destination.parse(service)
        except ValueError:
            return 0
        self._directory.refresh(self._database, revision)
        return self._longest(destination)

    def _longest(self, destination: Destination) -> int:
        times = (instance.timeout for instance in self._directory.named(destination.name))
        return max((nearest(time, default=DEFAULT_TIMEOUT) for time in times), default=0)

    def _attempt(self, request: ServiceRequest, chosen: Chosen) -> ServiceReply:
        instance = chosen.instance
        try:
            response = self._sent(request, instance)
        except CallFailed as error:
            if error.transient or chosen.probe:
                self._chooser.report(chosen, ok=False)
            return Failure(error.error_class, f"{instance.name}: {error.detail}", error.transient)
        answered = Answered(response.status, response.headers.get("Retry-After"))
        self._chooser.report(chosen, ok=not answered.counts_against_circuit)
        return _taken(response) if answered.ok else _refused(instance, response, answered)

    def _sent(self, request: ServiceRequest, instance: Instance) -> Response:
        """The request made; by whatever transport the endpoint's scheme names. Raises a CallFailed."""
        timeout = nearest(request.timeout_ms, instance.timeout, default=DEFAULT_TIMEOUT)
        headers = _headers(request, instance, time.time())
        if instance.scheme in _WEB:
            return self._http.call(
                request.http_method,
                _url(request, instance),
                headers,
                request.body,
                timeout_ms=timeout,
                max_body=MAX_ANSWER,
            )
        transport = self._others.get(instance.scheme) if self._others else None
        if transport is None:
            raise RequestRefused(f"a workflow cannot call an endpoint of the form {instance.scheme}:")
        prepared = PreparedRequest()
        prepared.method, prepared.url, prepared.body = request.http_method, _url(request, instance), request.body
        prepared.headers = dict(headers)  # type: ignore[assignment]  # transports read any mapping
        reply = transport.send(prepared, timeout=timeout / 1000, max_body=MAX_ANSWER)
        return Response(reply.status_code, reply.headers, reply.content, round(reply.elapsed.total_seconds() * 1000))


def _not_now(why: NotNow, name: str) -> ServiceReply:
    if why.reason in _HELD:
        return Held(why.reason, why.retry_ms)
    return Failure(SERVICE_UNAVAILABLE, f"no instance of {name} can be called: {why.reason}", retryable=True)


def _url(request: ServiceRequest, instance: Instance) -> str:
    url = instance.url(request.path)
    if not request.query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(request.query)}"


def _headers(request: ServiceRequest, instance: Instance, now: float) -> list[tuple[str, str]]:
    """Ours, replaced by the step's, replaced by the service's own; the sealed ones stay ours."""
    ours = {"User-Agent": USER_AGENT, "Accept": "application/json", "X-Correlation-ID": request.correlation_id}
    if request.body:
        ours["Content-Type"] = "application/json"
    if request.traceparent:
        ours["traceparent"] = request.traceparent
    merged = {name.lower(): (name, value) for name, value in ours.items()}
    for name, value in (*request.headers.items(), *instance.headers):
        if name.lower() not in _SEALED:
            merged[name.lower()] = name, value
    signed = signing.headers(instance.keys(now), request.idempotency_key, int(now), request.body)
    return [*merged.values(), ("Idempotency-Key", request.idempotency_key), *signed]


def _taken(response: Response) -> ServiceReply:
    if response.truncated:
        return Failure(VALIDATION_ERROR, f"the answer is over the limit of {MAX_ANSWER} bytes")
    return Answer(response.status, value_of(response.body, response.headers.get("Content-Type")))


def _refused(instance: Instance, response: Response, answered: Answered) -> Failure:
    body = value_of(response.body[:MAX_ERROR_BODY], response.headers.get("Content-Type"))
    return Failure(
        answered.error_class,
        f"{instance.name} answered {response.status}",
        answered.transient,
        parse_retry_after(answered.retry_after, datetime.now(UTC)),
        {"statusCode": response.status, "body": body},
    )


def value_of(body: bytes, content_type: str | None) -> Any:
    """An answer's body as JSON if it is that, else as text, nothing as null. What no text column takes is replaced."""
    if not body:
        return None
    kind = (content_type or "json").lower()
    if "json" in kind or body[:1] in b"{[":
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            value = None
        else:
            if body.count(b"[") + body.count(b"{") <= MAX_DEPTH or not _deeper(value, MAX_DEPTH):
                return _storable(value) if b"\\u0000" in body else value
    return body.decode("utf-8", "replace").replace("\x00", "\ufffd")


def _deeper(value: Any, levels: int) -> bool:
    """Whether a value is nested deeper than that: what the bus takes from callers it takes from services."""
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(child, levels - 1) for child in children)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value
