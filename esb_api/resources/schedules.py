"""Schedules: workflows started by a calendar."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import orjson
from flask import Response

from esb_api.answers import answer, created, no_content
from esb_api.call import Call
from esb_api.etag import check_unchanged
from esb_api.operations import Resource
from esb_api.pages import cursor_id, page
from esb_api.params import either
from esb_api.patches import merged
from esb_api.principals import Access
from esb_api.schemas.schedules import ScheduleAnswer, ScheduleBody, SchedulePage, ScheduleQuery
from esb_workers.orchestration.schedules import Schedules, upcoming
from esb_workers.store.json import dumps
from esb_workers.store.schedules import ScheduleRow

schedules = Resource("schedules")

#: Due times that an answer looks ahead.
AHEAD: Final = 5


@schedules.operation(
    "POST", "/orchestration/schedules", access=Access.OPERATOR, body=ScheduleBody, answers={201: ScheduleAnswer},
    refusals=(404, 409),
)  # fmt: skip
def create_schedule(call: Call, body: ScheduleBody) -> Response:
    """Start runs of a workflow by a calendar. Each due time is handled exactly once."""
    row = _schedules(call).create(_columns(body), by=call.principal.actor)
    return created(_shown(row), f"/orchestration/schedules/{row.id}", etag=row.etag)


@schedules.operation(
    "GET", "/orchestration/schedules", access=Access.OPERATOR, query=ScheduleQuery, answers={200: SchedulePage}
)
def list_schedules(call: Call, query: ScheduleQuery) -> Response:
    """List schedules, newest first."""
    rows = _schedules(call).page(
        query.limit,
        cursor_id(query.cursor),
        names=query.name,
        workflows=query.workflow_name,
        enabled=either(query.enabled),
    )
    return answer(SchedulePage(**page(rows, query.limit, _shown, lambda row: row.id)))


@schedules.operation("GET", "/orchestration/schedules/{id}", access=Access.OPERATOR, answers={200: ScheduleAnswer})
def read_schedule(call: Call, schedule_id: str) -> Response:
    """Read a schedule, with its next due times and what became of the last one."""
    row = _schedules(call).get(schedule_id)
    return answer(_shown(row), etag=row.etag)


@schedules.operation(
    "PATCH", "/orchestration/schedules/{id}", access=Access.OPERATOR, body=ScheduleBody,
    answers={200: ScheduleAnswer}, refusals=(409,), headers=("If-Match",),
)  # fmt: skip
def patch_schedule(call: Call, schedule_id: str, body: Any) -> Response:
    """Change a schedule by a merge patch (RFC 7386). The next due time is looked for from now on: none was missed."""

    def edit(row: ScheduleRow) -> dict[str, Any]:
        check_unchanged(call, row)
        return _columns(merged(ScheduleBody, _writable(row), body))

    row = _schedules(call).change(schedule_id, edit, by=call.principal.actor)
    return answer(_shown(row), etag=row.etag)


@schedules.operation(
    "DELETE", "/orchestration/schedules/{id}", access=Access.OPERATOR, answers={204: None}, headers=("If-Match",)
)
def delete_schedule(call: Call, schedule_id: str) -> Response:
    """Delete a schedule. Runs that it has started go on."""
    _schedules(call).delete(schedule_id, partial(check_unchanged, call), by=call.principal.actor)
    return no_content()


def _schedules(call: Call) -> Schedules:
    return Schedules(call.api.database, call.api.orchestration)


def _columns(body: ScheduleBody) -> dict[str, Any]:
    values = body.model_dump()
    return values | {"input": dumps(values.pop("initial_context"))}


def _writable(row: ScheduleRow) -> dict[str, Any]:
    names = {field.alias or name for name, field in ScheduleBody.model_fields.items()}
    shown = orjson.loads(_shown(row).model_dump_json(by_alias=True))
    return {name: value for name, value in shown.items() if name in names and value is not None}


def _shown(row: ScheduleRow) -> ScheduleAnswer:
    values = row._asdict()
    return ScheduleAnswer(
        **{name: values[name] for name in ScheduleAnswer.model_fields if name in values},
        initial_context=orjson.loads(row.input),
        next_runs=list(upcoming(row, datetime.now(UTC), AHEAD)),
        queued_runs=len(row.queued),
        last_due_at=row.last_at,
        last_execution_id=row.last_run,
    )
