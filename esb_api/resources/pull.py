"""Deliveries for receivers that nobody can call: they fetch them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import orjson
from flask import Response

from esb_api.answers import answer
from esb_api.call import Call
from esb_api.operations import Resource
from esb_api.principals import Access
from esb_api.schemas.pull import (
    AckBody,
    ExtendBody,
    LeasesAnswer,
    NackBody,
    PullBody,
    PullFiguresAnswer,
    SettledAnswer,
    lease_of,
    token_of,
)
from esb_workers.clock import to_wire
from esb_workers.delivery.pull import Leased, Verdict
from esb_workers.delivery.request import traceparent
from esb_workers.errors import Forbidden
from esb_workers.store.pulls import Lease

pull = Resource("pull")

_NO_REASON: Final = "given back without a reason"
#: Pauses between looks while there is nothing, seconds.
_FIRST_LOOK, _LONGEST_PAUSE = 0.01, 0.25


@pull.operation(
    "POST", "/routing/pull/{service}", access=Access.SERVICE, body=PullBody, body_optional=True,
    answers={200: LeasesAnswer}, refusals=(409,), texts=("service",),
)  # fmt: skip
def pull_deliveries(call: Call, service: str, body: PullBody) -> Response:
    """Lease deliveries of a service whose endpoint is `pull:`.

    Each is an attempt. What is neither acknowledged nor given back before its lease ends is handed out again. A key of
    the service with the scope `pull` may do this, and the operator.
    """
    _check(call, service)
    found = call.api.puller.lease(service, body.limit, body.lease_ms)
    if not found and body.wait:
        with call.api.waiting.place() as placed:
            if placed:
                found = _awaited(call, service, body)
    return answer({"items": [_item(one) for one in found]})


def _awaited(call: Call, service: str, body: PullBody) -> list[Leased]:
    deadline, pause = time.monotonic() + body.wait / 1000, _FIRST_LOOK
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        if found := call.api.puller.lease(service, body.limit, body.lease_ms):
            return found
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    return []


def _item(leased: Leased) -> dict[str, Any]:
    prepared, message = leased.prepared, leased.prepared.message
    assert message is not None and prepared.payload is not None
    claim = prepared.claim
    return {
        "deliveryId": claim.id,
        "token": token_of(Lease(claim.id, claim.attempt)),
        "attempt": claim.attempt,
        "leasedUntil": to_wire(leased.until),
        "messageId": message.external_id or message.id,
        "source": message.source,
        "messageType": message.type,
        "correlationId": message.correlation_id,
        "traceparent": message.traceparent or traceparent(message.id, claim.id),
        "createdAt": to_wire(message.created_at),
        "orderingKey": claim.okey,
        "headers": dict(prepared.headers),
        "payload": orjson.Fragment(prepared.payload),  # as it came: read and written anew, numbers could change
    }


@pull.operation(
    "POST", "/routing/pull/{service}/ack", access=Access.SERVICE, body=AckBody, answers={200: SettledAnswer},
    refusals=(409,), texts=("service",),
)  # fmt: skip
def ack_deliveries(call: Call, service: str, body: AckBody) -> Response:
    """Say that leased deliveries were taken: they are delivered."""
    _check(call, service)
    verdicts = [Verdict(lease_of(item.token), result=_body(item.result)) for item in body.items]
    return _settled(call, service, verdicts)


def _body(result: Any) -> bytes:
    return b"" if result is None else orjson.dumps(result)


@pull.operation(
    "POST", "/routing/pull/{service}/nack", access=Access.SERVICE, body=NackBody, answers={200: SettledAnswer},
    refusals=(409,), texts=("service",),
)  # fmt: skip
def nack_deliveries(call: Call, service: str, body: NackBody) -> Response:
    """Give leased deliveries back: a failed attempt, tried again by the retry policy unless `dead` is said."""
    _check(call, service)
    verdicts = [
        Verdict(lease_of(item.token), reason=item.reason or _NO_REASON, delay_ms=item.delay, final=item.dead)
        for item in body.items
    ]
    return _settled(call, service, verdicts)


@pull.operation(
    "POST", "/routing/pull/{service}/extend", access=Access.SERVICE, body=ExtendBody, answers={200: SettledAnswer},
    refusals=(409,), texts=("service",),
)  # fmt: skip
def extend_leases(call: Call, service: str, body: ExtendBody) -> Response:
    """Have leases hold longer, counted from now."""
    _check(call, service)
    stood = call.api.puller.lengthen(service, [lease_of(token) for token in body.tokens], body.lease_ms)
    outcomes = ["extended" if one else "superseded" for one in stood]
    return answer({"items": [{"token": t, "outcome": o} for t, o in zip(body.tokens, outcomes, strict=True)]})


@pull.operation(
    "GET", "/routing/pull/{service}", access=Access.SERVICE, answers={200: PullFiguresAnswer}, refusals=(409,),
    texts=("service",),
)  # fmt: skip
def read_pull_figures(call: Call, service: str) -> Response:
    """How much waits for a service that pulls."""
    _check(call, service)
    return answer(PullFiguresAnswer(service=service, **call.api.puller.figures(service)._asdict()))


def _settled(call: Call, service: str, verdicts: Sequence[Verdict]) -> Response:
    outcomes = call.api.puller.settle(service, verdicts)
    return answer(
        {"items": [{"token": token_of(v.lease), "outcome": o} for v, o in zip(verdicts, outcomes, strict=True)]}
    )


def _check(call: Call, service: str) -> None:
    """Whether the key may pull for this service. Raises Forbidden, NotFound, Conflict."""
    principal = call.principal
    if principal.service_id is None:
        call.api.puller.instance(service)
        return
    if principal.scope != "pull":
        raise Forbidden("This key may only send heartbeats.")
    if call.api.services.get(principal.service_id).name != service:
        raise Forbidden("This key belongs to another service.")
    call.api.puller.instance(service)
