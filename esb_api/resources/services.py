"""The service registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from flask import Response
from pydantic.alias_generators import to_camel

from esb_api.answers import answer, created, no_content, secret
from esb_api.call import Call
from esb_api.etag import check_unchanged
from esb_api.operations import Resource
from esb_api.pages import cursor_id, decode_cursor, encode_cursor, key_page, page, page_of_all
from esb_api.params import PageQuery
from esb_api.patches import merged
from esb_api.principals import Access
from esb_api.schemas.services import (
    CheckAnswer,
    CheckPage,
    CreatedDeliveryAnswer,
    CreatedServiceAnswer,
    CreatedServiceKeyAnswer,
    DeliveryAnswer,
    DeliveryBody,
    DiscoverQuery,
    FoundAnswer,
    HealthCheckBody,
    InstanceAnswer,
    InstancesAnswer,
    RotationBody,
    SecretAnswer,
    ServiceAnswer,
    ServiceBody,
    ServiceKeyAnswer,
    ServiceKeyBody,
    ServiceKeysAnswer,
    ServicePage,
    ServiceQuery,
    StatusBody,
)
from esb_workers.errors import FieldError, Forbidden, Invalid
from esb_workers.health import checks
from esb_workers.registry.versions import Version, parse_version
from esb_workers.store.checks import Recorded
from esb_workers.store.clients import KeyRow
from esb_workers.store.services import CheckRow, ServiceRow
from esb_workers.transport.transports import PULL

services = Resource("services")

#: A heartbeat that is not heard of for this many intervals is missed, where no `ttl` is given.
_MISSED_BEATS = 3


@services.operation(
    "POST", "/services", access=Access.OPERATOR, body=ServiceBody, answers={201: CreatedServiceAnswer}, refusals=(409,)
)
def create_service(call: Call, body: ServiceBody) -> Response:
    """Register an instance of a service.

    Instances share a name. Without `delivery` or `signingSecret` a new one takes those of its name; the secret is
    shown in this answer only.
    """
    row, signing_secret = call.api.services.register(columns(body), by=call.principal.actor)
    call.api.bus.ringer.ring("delivery")  # what was held for want of an instance can go
    whole = answer_of(row).model_dump()
    whole["delivery"] |= {"signing_secret": signing_secret}
    model = CreatedServiceAnswer(**whole | {"delivery": CreatedDeliveryAnswer(**whole["delivery"])})
    return secret(created(model, f"/services/{row.id}", etag=row.etag))


@services.operation("GET", "/services", access=Access.OPERATOR, query=ServiceQuery, answers={200: ServicePage})
def list_services(call: Call, query: ServiceQuery) -> Response:
    """List services, newest first."""
    rows = call.api.services.page(
        query.limit,
        cursor_id(query.cursor),
        name=query.name,
        status=query.status,
        health=query.health,
        tag=query.tag,
    )
    return answer(ServicePage(**page(rows, query.limit, answer_of, lambda row: row.id)))


@services.operation("GET", "/services/{id}", access=Access.OPERATOR, answers={200: ServiceAnswer})
def read_service(call: Call, service_id: str) -> Response:
    """Read one instance."""
    return _answered(call.api.services.get(service_id))


@services.operation(
    "PUT", "/services/{id}", access=Access.OPERATOR, body=ServiceBody, answers={200: ServiceAnswer}, refusals=(409,),
    headers=("If-Match",),
)  # fmt: skip
def replace_service(call: Call, service_id: str, body: ServiceBody) -> Response:
    """Replace an instance's registration.

    Fields that are not given go back to their defaults, but the signing secret is kept.
    """
    return _change(call, service_id, lambda _: body)


@services.operation(
    "PATCH", "/services/{id}", access=Access.OPERATOR, body=ServiceBody, answers={200: ServiceAnswer},
    refusals=(409,), headers=("If-Match",),
)  # fmt: skip
def patch_service(call: Call, service_id: str, body: Any) -> Response:
    """Change an instance's registration by a merge patch (RFC 7386)."""
    return _change(call, service_id, lambda row: merged(ServiceBody, _writable(row), body))


def _change(call: Call, service_id: str, make: Callable[[ServiceRow], ServiceBody]) -> Response:
    def edit(row: ServiceRow) -> dict[str, Any]:
        check_unchanged(call, row)
        values = columns(make(row))
        return values | {"delivery": values["delivery"] or {}}

    row = call.api.services.change(service_id, edit, by=call.principal.actor)
    call.api.bus.ringer.ring("delivery")
    return _answered(row)


@services.operation("DELETE", "/services/{id}", access=Access.OPERATOR, answers={204: None}, headers=("If-Match",))
def delete_service(call: Call, service_id: str) -> Response:
    """Deregister an instance.

    With the last instance of its name, the open deliveries to that name end as dead (`service_deleted`).
    """
    call.api.services.deregister(service_id, lambda row: _expect(call, row), by=call.principal.actor)
    return no_content()


@services.operation(
    "PATCH", "/services/{id}/status", access=Access.OPERATOR, body=StatusBody, merges=False,
    answers={200: ServiceAnswer}, headers=("If-Match",),
)  # fmt: skip
def set_service_status(call: Call, service_id: str, body: StatusBody) -> Response:
    """Put an instance into or out of service.

    `maintenance` holds deliveries without loss, `inactive` takes the instance out of discovery.
    """
    row = call.api.services.set_status(service_id, body.status, lambda row: _expect(call, row), by=call.principal.actor)
    call.api.bus.ringer.ring("delivery")
    call.api.bus.ringer.ring("orchestration")
    return _answered(row)


@services.operation(
    "GET", "/services/discover/{name}", access=Access.CLIENT, query=DiscoverQuery, answers={200: InstancesAnswer},
    texts=("name",),
)  # fmt: skip
def discover_services(call: Call, name: str, query: DiscoverQuery) -> Response:
    """Find the active, not unhealthy instances of a service, with their weights.

    A client finds only what it may call.
    """
    client = call.principal.client
    if client is not None and not client.may_use(name):
        raise Forbidden("This client may not use the service.", code="service_forbidden")
    rows = call.api.services.discover(name, query.version, query.tag)
    after = decode_cursor(query.cursor, Version, UUID)
    return answer(InstancesAnswer(**page_of_all(rows, query.limit, after, _instance, _place, _order)))


def _place(row: ServiceRow) -> tuple[str, str]:
    return row.version, row.id


def _order(place: tuple[str, str]) -> tuple[Version, str]:
    return parse_version(place[0]), place[1]


def _instance(row: ServiceRow) -> InstanceAnswer:
    return InstanceAnswer.model_validate({name: getattr(row, name) for name in InstanceAnswer.model_fields})


# --- health ----------------------------------------------------------------------------------------------


@services.operation("GET", "/services/{id}/health", access=Access.OPERATOR, query=PageQuery, answers={200: CheckPage})
def list_checks(call: Call, service_id: str, query: PageQuery) -> Response:
    """List the checks of an instance, oldest first, with the changes of its health."""
    after = decode_cursor(query.cursor, str, int) if query.cursor else None
    cursor, seq = (cursor_id(after[0]), after[1]) if after else (None, 0)
    rows = call.api.services.checks(service_id, query.limit, cursor)
    items = [_check(row, seq + n) for n, row in enumerate(rows[: query.limit], 1)]
    more = len(rows) > query.limit
    following = encode_cursor(encode_cursor(items[-1].id), items[-1].seq) if more else None
    return answer(CheckPage(items=items, next_cursor=following))


def _check(row: CheckRow, seq: int) -> CheckAnswer:
    fields = row._asdict()
    del fields["service_id"]
    return CheckAnswer(seq=seq, **fields)


@services.operation("POST", "/services/{id}/probe", access=Access.OPERATOR, answers={200: FoundAnswer}, refusals=(409,))
def probe_service(call: Call, service_id: str) -> Response:
    """Check an instance now.

    The outcome counts as any other check. 409 if it has no `healthCheck`, or one of type `heartbeat`.
    """
    return _found(checks.check_now(call.api.database, call.api.http, service_id))


@services.operation(
    "POST", "/services/{id}/heartbeat", access=Access.SERVICE, answers={200: FoundAnswer}, refusals=(409,)
)
def beat_service(call: Call, service_id: str) -> Response:
    """Tell that an instance is well; for a `healthCheck` of type `heartbeat`.

    A service's own key may do this, and only for that service.
    """
    if call.principal.service_id not in (None, service_id.lower()):
        raise Forbidden("This key belongs to another service.")
    if call.principal.scope == "pull":
        raise Forbidden("This key may only pull deliveries.")
    return _found(checks.heartbeat(call.api.database, service_id))


def _found(recorded: Recorded) -> Response:
    model = FoundAnswer.model_validate(
        {
            "id": recorded.id,
            "at": recorded.at,
            "health": recorded.state.health,
            "changed": recorded.changed,
            **recorded.finding._asdict(),
        }
    )
    return answer(model)


# --- keys and secrets ------------------------------------------------------------------------------------


@services.operation(
    "POST", "/services/{id}/keys", access=Access.OPERATOR, body=ServiceKeyBody, body_optional=True,
    answers={201: CreatedServiceKeyAnswer},
)  # fmt: skip
def create_service_key(call: Call, service_id: str, body: ServiceKeyBody) -> Response:
    """Make a key that may only send this instance's heartbeat, or pull its deliveries; shown in this answer only."""
    key, text = call.api.services.add_key(service_id, body.scope, by=call.principal.actor)
    model = CreatedServiceKeyAnswer(**_key(key).model_dump(), api_key=text)
    return secret(created(model, f"/services/{service_id}/keys"))


@services.operation(
    "GET", "/services/{id}/keys", access=Access.OPERATOR, query=PageQuery, answers={200: ServiceKeysAnswer}
)
def list_service_keys(call: Call, service_id: str, query: PageQuery) -> Response:
    """List an instance's keys, newest first."""
    rows = call.api.services.keys(service_id)
    return answer(ServiceKeysAnswer(**key_page(rows, query.limit, query.cursor, _key)))


@services.operation(
    "DELETE", "/services/{id}/keys/{keyId}", access=Access.OPERATOR, answers={204: None}, texts=("keyId",)
)
def delete_service_key(call: Call, service_id: str, key_id: str) -> Response:
    """Revoke one of an instance's keys."""
    call.api.services.revoke_key(service_id, key_id, by=call.principal.actor)
    return no_content()


def _key(row: KeyRow) -> ServiceKeyAnswer:
    return ServiceKeyAnswer(id=row.id, scope=row.scope, created_at=row.created_at, expires_at=row.expires_at)


@services.operation(
    "POST", "/services/{id}/signing-secret/rotate", access=Access.OPERATOR, body=RotationBody, body_optional=True,
    answers={200: SecretAnswer},
)  # fmt: skip
def rotate_signing_secret(call: Call, service_id: str, body: RotationBody) -> Response:
    """Make a new signing secret, shown in this answer only; during the overlap both sign."""
    rotated = call.api.services.rotate_secret(service_id, body.overlap, by=call.principal.actor)
    return secret(answer(SecretAnswer(signing_secret=rotated.secret, previous_expires_at=rotated.previous_until)))


# --- between rows and bodies -----------------------------------------------------------------------------


def columns(body: ServiceBody) -> dict[str, Any]:
    """What is stored of a body. `delivery` holds only what was given, so that an outer default can apply."""
    _check_pull(body)
    delivery = body.delivery.model_dump(by_alias=True, exclude_unset=True, exclude_none=True) if body.delivery else None
    signing_secret = delivery.pop("signingSecret", None) if delivery else None
    values = {
        "name": body.name,
        "version": body.version,
        "endpoint": body.endpoint,
        "health_check": _health_check(body.health_check),
        "weight": body.weight,
        "tags": body.tags,
        "metadata": body.metadata,
        "delivery": delivery,
    }
    return values | ({"secret": signing_secret} if signing_secret else {})


#: What says how a service is called, and so means nothing for one that pulls.
_OF_CALLS = ("path", "method", "timeout", "headers", "format", "rate_per_second", "catch_up_per_second")


def _check_pull(body: ServiceBody) -> None:
    """Raises Invalid for settings that a pull endpoint could only ignore; a default that is repeated is none."""
    given = body.delivery
    if body.endpoint != PULL or given is None:
        return
    fields = DeliveryBody.model_fields
    wrong = [name for name in _OF_CALLS if getattr(given, name) != fields[name].get_default(call_default_factory=True)]
    if wrong:
        raise Invalid([FieldError(f"delivery.{to_camel(name)}", "means nothing for `pull:`") for name in wrong])


def _health_check(body: HealthCheckBody | None) -> dict[str, Any] | None:
    if body is None:
        return None
    values = body.model_dump(by_alias=True, exclude_none=True)
    if body.type == "heartbeat":
        values.setdefault("ttl", _MISSED_BEATS * body.interval)
    return values


def _writable(row: ServiceRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "version": row.version,
        "endpoint": row.endpoint,
        "healthCheck": row.health_check,
        "weight": row.weight,
        "tags": row.tags,
        "metadata": row.metadata,
        "delivery": row.delivery,
    }


def answer_of(row: ServiceRow) -> ServiceAnswer:
    """A stored row as it is shown."""
    fields = {name: getattr(row, name) for name in ServiceAnswer.model_fields if name != "delivery"}
    delivery = DeliveryBody.model_validate(row.delivery).model_dump(exclude={"signing_secret", "retry_policy"})
    policy = row.delivery.get("retryPolicy")
    return ServiceAnswer.model_validate(fields | {"delivery": DeliveryAnswer(**delivery, retry_policy=policy)})


def _answered(row: ServiceRow) -> Response:
    return answer(answer_of(row), etag=row.etag)


def _expect(call: Call, row: ServiceRow) -> None:
    check_unchanged(call, row)
