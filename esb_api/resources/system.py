"""The bus itself: health, figures, audit trail, documentation."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import Final

from flask import Response, current_app

from esb_api import docs, openapi
from esb_api.answers import JSON, answer, to_json
from esb_api.call import Call
from esb_api.metrics import CONTENT_TYPE
from esb_api.operations import Resource, declared
from esb_api.pages import cursor_id, page
from esb_api.principals import Access
from esb_api.schemas.system import (
    AuditAnswer,
    AuditPage,
    AuditQuery,
    InfoAnswer,
    LiveAnswer,
    QueueAnswer,
    QueuesAnswer,
    ReadyAnswer,
)
from esb_workers.errors import SchemaMismatch, Unavailable
from esb_workers.queues import POOL_IDS, POOLS, PoolName
from esb_workers.store import audit, figures, step_queues
from esb_workers.store.jobs import QueueFigures
from esb_workers.store.migrate import check
from esb_workers.transport import broker

system = Resource("system")

_STARTED: Final = datetime.now(UTC)
_POOL_NAMES: Final[dict[int, PoolName]] = {number: name for name, number in POOL_IDS.items()}


@system.operation("GET", "/health/live", access=Access.OPEN, answers={200: LiveAnswer})
def read_liveness(call: Call) -> Response:
    """Whether the process answers."""
    return answer(LiveAnswer())


@system.operation("GET", "/health/ready", access=Access.OPEN, answers={200: ReadyAnswer, 503: ReadyAnswer})
def read_readiness(call: Call) -> Response:
    """Whether the bus can do its work.

    503 only when the database is away or its schema does not fit.
    """
    ready = _readiness(call)
    response = answer(ready, 503 if ready.status == "failed" else 200)
    if ready.status == "failed":
        response.headers["Retry-After"] = str(Unavailable.retry_after)
    return response


def _readiness(call: Call) -> ReadyAnswer:
    workers: dict[PoolName, int] = dict.fromkeys(POOLS, 0)
    database, schema = True, True
    try:
        check(call.api.database)
        workers |= {_POOL_NAMES[row.pool]: row.workers for row in _queues(call)}
    except SchemaMismatch:
        schema = False
    except Unavailable:
        database = schema = False
    url = call.api.settings.broker_url
    broker_word = "none" if url is None else "ok" if broker.answers(url.get_secret_value()) else "failed"
    status = "failed" if not schema else "ok" if broker_word == "ok" else "degraded"
    return ReadyAnswer.model_validate(
        {
            "status": status,
            "database": _word(database),
            "broker": broker_word,
            "schema": _word(schema),
            "workers": workers,
        }
    )


def _word(fine: bool) -> str:
    return "ok" if fine else "failed"


def _queues(call: Call) -> list[QueueFigures]:
    with call.api.database.cursor() as cursor:
        return figures.queues(cursor)


@system.operation("GET", "/metrics", access=Access.OPERATOR, answers={200: "text/plain"})
def read_metrics(call: Call) -> Response:
    """Figures in Prometheus's text form."""
    return Response(call.api.metrics.text(call.api.database), content_type=CONTENT_TYPE)


@system.operation("GET", "/openapi.json", access=Access.OPEN, answers={200: JSON})
def read_openapi(call: Call) -> Response:
    """This document."""
    if call.api.openapi is None:
        call.api.openapi = to_json(openapi.document(declared(current_app)))
    return Response(call.api.openapi, content_type=JSON)


@system.operation("GET", "/docs", access=Access.OPEN, answers={200: "text/html"})
def read_docs(call: Call) -> Response:
    """This document as a page, to read and to try out."""
    return docs.page()


@system.operation("GET", "/system/info", access=Access.OPERATOR, answers={200: InfoAnswer})
def read_info(call: Call) -> Response:
    """Versions and limits of this bus."""
    settings = call.api.settings
    with call.api.database.cursor() as cursor:
        postgresql = figures.server_version(cursor)
    return answer(
        InfoAnswer(
            name="Enterprise Service Bus",
            version=openapi.version(),
            schema_version=check(call.api.database),
            python=platform.python_version(),
            postgresql=postgresql,
            started_at=_STARTED,
            max_body_bytes=settings.max_body_bytes,
            retention_days=settings.retention_days,
            quotas="redis" if settings.redis_for_quotas() else "postgresql",
        )
    )


@system.operation("GET", "/system/queues", access=Access.OPERATOR, answers={200: QueuesAnswer})
def read_queues(call: Call) -> Response:
    """Depth and age of the oldest due row of each pool."""
    items = [
        QueueAnswer(
            pool=_POOL_NAMES[row.pool],
            due=row.due,
            oldest_due_age_ms=row.oldest_due_age_ms,
            in_flight=row.in_flight,
            workers=row.workers,
        )
        for row in _queues(call)
    ]
    with call.api.database.cursor() as cursor:
        steps = step_queues.depths(cursor)
    items += [QueueAnswer(pool=step_queues.bell(depth.name), **_without_name(depth)) for depth in steps]
    return answer(QueuesAnswer(items=items))


def _without_name(depth: step_queues.QueueDepth) -> dict[str, int]:
    return {name: value for name, value in depth._asdict().items() if name != "name"}


@system.operation("GET", "/system/audit", access=Access.OPERATOR, query=AuditQuery, answers={200: AuditPage})
def read_audit(call: Call, query: AuditQuery) -> Response:
    """Who changed which registration, newest first."""
    with call.api.database.read() as connection:
        rows = audit.page(
            connection,
            query.limit,
            cursor_id(query.cursor),
            resource=query.resource,
            resource_id=query.resource_id,
            actor=query.actor,
            since=query.from_,
            until=query.to,
        )
    return answer(AuditPage.model_validate(page(rows, query.limit, _audit_answer, lambda row: row.id)))


def _audit_answer(row: audit.AuditRow) -> AuditAnswer:
    return AuditAnswer(**row._asdict())
