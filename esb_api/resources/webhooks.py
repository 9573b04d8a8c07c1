"""What other systems post to the bus: verified, mapped to a message, accepted. No API key."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from flask import Response
from werkzeug.exceptions import MethodNotAllowed

from esb_api.accept import Incoming, correlation_of, new_message
from esb_api.answers import answer
from esb_api.call import Call
from esb_api.idempotency import check_current
from esb_api.operations import Resource
from esb_api.params import AnyQuery
from esb_api.principals import Access, Principal
from esb_api.problems import status_of
from esb_api.schemas.messages import AcceptedAnswer, MessageBody
from esb_api.schemas.types import NAME_PATTERN
from esb_api.validation import validated
from esb_workers.bus import NewMessage
from esb_workers.errors import EsbError, FieldError, Invalid, Malformed, NotFound, QuotaExceeded, Unavailable
from esb_workers.expressions.functions import bound
from esb_workers.store.engine import StaleRevision
from esb_workers.store.ids import new_id
from esb_workers.store.ingress import RefusalRow
from esb_workers.strictjson import parse_json
from esb_workers.webhooks.definition import Ingress
from esb_workers.webhooks.reading import FORM, JSON, read_body
from esb_workers.webhooks.refusals import shown_headers
from esb_workers.webhooks.verification import Received

webhooks = Resource("webhooks")

_NAME: Final = re.compile(NAME_PATTERN)
#: What it depends on what a webhook comes to.
_TOPICS: Final = ("ingress", "lookup_tables")
_ANY_FORM: Final = {"type": "object", "additionalProperties": {"type": "string"}}


@webhooks.operation(
    "POST", "/ingress/{name}", access=Access.OPEN, cached=True, media={JSON: {}, FORM: _ANY_FORM}, query=AnyQuery,
    answers={200: "text/plain", 202: AcceptedAnswer}, refusals=(401, 403, 409, 429), texts=("name",),
    headers=("X-Correlation-ID", "traceparent"),
)  # fmt: skip
def receive_webhook(call: Call, name: str) -> Response:
    """Take an inbound webhook: verified as its definition says, mapped, and accepted as a message.

    200 with the answer to a challenge, where the definition knows one.
    """
    found = _find(call, name)
    try:
        return _receive(call, found)
    except EsbError as error:
        _keep_refusal(call, found, error)
        raise


@webhooks.operation(
    "GET", "/ingress/{name}", access=Access.OPEN, cached=True, query=AnyQuery, answers={200: "text/plain"},
    refusals=(401, 403, 405), texts=("name",),
)  # fmt: skip
def confirm_webhook(call: Call, name: str) -> Response:
    """Answer the GET by which a sender makes sure of the URL, where the definition knows one."""
    call.api.revisions.refresh()  # no accept will look whether what is remembered still holds
    found = _find(call, name)
    if found.query_challenge is None:
        raise MethodNotAllowed(valid_methods=["POST"])
    try:
        found.require_enabled()
        return _told(found.query_challenge.answer(_query(call), found.challenge_token))
    except EsbError as error:
        _keep_refusal(call, found, error)
        raise


def _find(call: Call, name: str) -> Ingress:
    topics = call.api.revisions.last()
    # What is remembered decides, so that what it decides must be checked: see `operations`.
    call.principal = Principal("nobody", known={topic: topics[topic] for topic in _TOPICS})
    found = call.api.ingress_book.find(name, topics["ingress"]) if _NAME.match(name) else None
    if found is None:
        raise NotFound
    return found


def _receive(call: Call, found: Ingress) -> Response:
    found.require_enabled()
    raw = call.raw_body(call.api.settings.max_body_bytes)
    headers = {key.lower(): value for key, value in call.headers.items()}
    received = Received(call.method, headers, _query(call), raw)
    found.verify(received, time.time())
    body = read_body(raw, call.environ.get("CONTENT_TYPE") or None, found.json_field, parse_json)
    names = {"body": body, "headers": headers, "query": dict(received.query), "method": call.method}
    with bound(call.api.lookups.refresh(call.api.database, sum(call.api.revisions.last().values()))):
        told = None if found.body_challenge is None else found.body_challenge.answer(names)
        new = None if told is not None else _message(call, found, names)
    if new is not None:
        return _accept(call, found, new)
    check_current(call)
    return _told(told or "")


def _query(call: Call) -> dict[str, str]:
    query = call.args.to_dict()
    if any("\0" in name + value for name, value in query.items()):
        raise Malformed("The query contains a NUL character.")
    return query


def _told(text: str) -> Response:
    response = Response(text, 200, content_type="text/plain; charset=utf-8")
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _message(call: Call, found: Ingress, names: dict[str, Any]) -> NewMessage:
    fields = found.mapping.message(names)
    try:
        fields["payload"] = parse_json(orjson.dumps(fields["payload"]))  # an expression may make what none may send
        body = validated(MessageBody, fields)
    except Invalid as error:
        faults = [FieldError(f"mapping.{fault.path}", fault.message) for fault in error.errors]
        raise Invalid(faults, code="mapping_failed") from None
    except (Malformed, TypeError) as error:
        raise Invalid([FieldError("mapping.payload", str(error))], code="mapping_failed") from None
    new = new_message(call, Incoming(body))
    # Known by its id alone: senders repeat a webhook with another signature, or with counters moved on.
    return replace(new, scope=f"ingress:{found.id}:message", fingerprint=body.message_id)


def _accept(call: Call, found: Ingress, new: NewMessage) -> Response:
    taken = call.api.quotas.take(found.id, found.limits)
    try:
        (outcome,) = call.api.bus.publish([new], call.principal.known)
    except BaseException:
        call.api.quotas.give_back(taken)
        raise
    correlation_id = new.correlation_id
    if outcome.outcome != "accepted":
        call.api.quotas.give_back(taken)
        correlation_id = correlation_of(call, [outcome.id]).get(outcome.id, correlation_id)
    call.correlation_id = correlation_id
    message_id = new.message_id or outcome.id
    return answer(AcceptedAnswer(id=outcome.id, message_id=message_id, correlation_id=correlation_id), 202)


def _keep_refusal(call: Call, found: Ingress, error: EsbError) -> None:
    """Keep a refusal that stands. Raises StaleRevision for one by a definition that has changed meanwhile."""
    if isinstance(error, QuotaExceeded):
        error.extra.pop("rate_limit", None)
    if isinstance(error, Unavailable):
        return
    if not call.api.revisions.hold(call.principal.known or {}):
        raise StaleRevision from None
    length = call.environ.get("CONTENT_LENGTH") or ""
    row = RefusalRow(
        id=new_id(),
        ingress_id=found.id,
        at=datetime.now(UTC),
        status=status_of(error),
        code=error.specific_code,
        reason=error.detail[:1000].replace("\0", ""),
        method=call.method,
        remote=call.remote_addr,
        content_type=(call.environ.get("CONTENT_TYPE") or "")[:200].replace("\0", "") or None,
        bytes=int(length) if length.isdecimal() and len(length) < 10 else None,
        headers=shown_headers(call.headers.items(), getattr(found.verification, "header", None)),
    )
    call.api.refusals.add(row)
