"""Executions: started, read, steered."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import orjson
from flask import Response

from esb_api import execution_view
from esb_api.admission import Places, places_of
from esb_api.answers import answer
from esb_api.call import Call
from esb_api.idempotency import Reply, once
from esb_api.operations import Resource
from esb_api.pages import cursor_id, decode_cursor, encode_cursor, page
from esb_api.params import PageQuery
from esb_api.principals import Access
from esb_api.schemas.orchestration import (
    CancelBody,
    ContextBody,
    ExecuteBody,
    ExecutionAnswer,
    ExecutionPage,
    ExecutionQuery,
    HistoryPage,
    RerunBody,
    SignalBody,
    SkipBody,
    StartedAnswer,
    StepPage,
)
from esb_api.validation import validated
from esb_api.waiting import wanted_wait
from esb_workers.errors import Conflict, Forbidden, NotFound, TooLarge
from esb_workers.orchestration.control import Control
from esb_workers.orchestration.start import NewExecution
from esb_workers.orchestration.views import FINAL
from esb_workers.store import runs
from esb_workers.store.engine import Cursor
from esb_workers.store.ids import as_id
from esb_workers.store.runs import RunRow

executions = Resource("executions")

#: Pauses between looks at a run that is waited for, seconds. At rest the worker tells of its end and ends the pause.
_FIRST_LOOK, _LONGEST_PAUSE = 0.006, 0.1
_HEADERS: Final = ("Idempotency-Key", "X-Correlation-ID", "traceparent", "Prefer")


# --- starting --------------------------------------------------------------------------------------------


@executions.operation(
    "POST", "/orchestration/execute", access=Access.CLIENT, body=ExecuteBody, raw=True, cached=True,
    answers={200: ExecutionAnswer, 202: StartedAnswer}, refusals=(404, 409, 429), headers=_HEADERS,
)  # fmt: skip
def execute_workflow(call: Call, body: Any) -> Response:
    """Start a run.

    202 once it is stored. With `Prefer: wait=SECONDS`, 200 with the run as `GET /orchestration/executions/{id}` shows
    it if it comes to its end in time. With a `businessKey` that another run has or had, `businessKeyReuse` decides:
    409, or 200 with that run. A workflow with `concurrency` may also refuse with 409 `concurrency_limit`.
    """
    asked = call.raw_body(call.api.settings.max_body_bytes)
    seconds = wanted_wait(call.environ.get("HTTP_PREFER"))
    with places_of(call) as places:
        reply = once(call, asked, lambda cursor: _start(call, cursor, places, body, rings=not seconds))
    if reply.status == 202 or (reply.status == 200 and not reply.replayed):
        stored = orjson.loads(reply.body)
        call.correlation_id = stored["correlationId"]
        if seconds is not None and (waited := _await(call, stored["executionId"], seconds)) is not None:
            return reply.marked(waited)
    return reply.response()


def _start(call: Call, cursor: Cursor | None, places: Places, body: Any, *, rings: bool) -> Reply:
    read = validated(ExecuteBody, body)
    _check_grant(call)
    front = call.api.orchestration
    new = NewExecution(
        input=read.initial_context,
        correlation_id=read.correlation_id or call.correlation_id,
        workflow_id=read.workflow_id,
        workflow_name=read.workflow_name,
        version=read.version,
        client_id=call.principal.client_id,
        traceparent=call.traceparent,
        business_key=read.business_key,
        reuse=read.business_key_reuse,
        priority=read.priority,
        revision=(call.principal.known or {}).get("clients"),
    )
    workflow = front.find(new)
    places.take(1)
    outcome, run = front.start(new, workflow, cursor)
    assert run is not None
    if outcome == "existing":
        places.give_back()  # nothing was started
        return _existing(call, run)
    started = StartedAnswer(execution_id=run, correlation_id=new.correlation_id)
    answered = started.model_dump_json(by_alias=True).encode()
    return Reply(202, answered, front.started) if rings else Reply(202, answered)


def _existing(call: Call, execution_id: str) -> Reply:
    """The run that has the business key, as it stands. Another client's is only said to be there."""
    with call.api.database.cursor() as cursor:
        try:
            row = own_run(call, cursor, execution_id)
        except NotFound:
            raise Conflict("another client's run has this business key", code="business_key_in_use") from None
        shown = execution_view.shown(cursor, row, call.api.orchestration.programs.get(row.workflow_id).program)
    return Reply(200, shown.model_dump_json(by_alias=True).encode())


def _check_grant(call: Call) -> None:
    client = call.principal.client
    if client is None:
        return
    if not client.allowed_services:
        raise Forbidden("This client may use no service.", code="service_forbidden")
    limit = client.max_payload_bytes
    if limit is not None and len(call.raw_body(call.api.settings.max_body_bytes)) > limit:
        raise TooLarge(f"The body is over this client's limit of {limit} bytes.", code="payload_too_large", limit=limit)


def _await(call: Call, execution_id: str, seconds: int) -> Response | None:
    with call.api.waiting.place() as placed:
        if not placed:
            call.api.orchestration.started()
            return None
        if not _ends_within(call, execution_id, seconds):
            return None
    response = _shown(call, execution_id)
    response.headers["Preference-Applied"] = f"wait={seconds}"
    return response


def _ends_within(call: Call, execution_id: str, seconds: int) -> bool:
    began, first = time.monotonic(), True
    with call.api.endings.expected(execution_id) as ended:
        while (waited := time.monotonic() - began) < seconds:
            # In proportion to what was waited: the answer is late by an eighth at most, however long the run.
            told = ended.wait(min(max(_FIRST_LOOK, waited / 8), _LONGEST_PAUSE, seconds - waited))
            ended.clear()  # before the look: what comes after it ends the next pause
            if first and not told:
                _ring_if_unheard(call, execution_id)
            first = False
            if _has_ended(call, execution_id):
                return True
    return _has_ended(call, execution_id)


def _ring_if_unheard(call: Call, execution_id: str) -> None:
    """The workers have been told already: a bell, which costs them as much as a quick run, is for if none has heard."""
    with call.api.database.cursor() as cursor:
        unheard = runs.unclaimed(cursor, execution_id)
    if unheard:
        call.api.orchestration.started()


def _has_ended(call: Call, execution_id: str) -> bool:
    with call.api.database.cursor() as cursor:
        return runs.status(cursor, execution_id) in FINAL


# --- reading ---------------------------------------------------------------------------------------------


@executions.operation(
    "GET", "/orchestration/executions", access=Access.CLIENT, query=ExecutionQuery, answers={200: ExecutionPage}
)
def list_executions(call: Call, query: ExecutionQuery) -> Response:
    """List runs, newest first. A client sees its own."""
    own = call.principal.client_id
    filters = {
        "workflow_id": _ids(query.workflow_id),
        "client_id": [own] if own else _ids(query.client_id),
        "workflow_name": query.workflow_name,
        "status": query.status,
        "error_class": query.error_class,
        "correlation_id": query.correlation_id,
        "business_key": query.business_key,
        "since": query.from_,
        "until": query.to,
    }
    if _nobody(query.workflow_id, filters["workflow_id"]) or _nobody(query.client_id, _ids(query.client_id)):
        return answer(ExecutionPage(items=[], next_cursor=None))
    if own and query.client_id is not None and own not in query.client_id:
        return answer(ExecutionPage(items=[], next_cursor=None))
    with call.api.database.cursor() as cursor:
        rows = runs.page(cursor, query.limit, cursor_id(query.cursor), filters)
    return answer(ExecutionPage(**page(rows, query.limit, execution_view.listed, lambda row: row.id)))


def _ids(given: list[str] | None) -> list[str] | None:
    return None if given is None else [known for text in given if (known := as_id(text)) is not None]


def _nobody(given: list[str] | None, known: Any) -> bool:
    """Whether ids were asked for of which none is an id."""
    return given is not None and not known


@executions.operation("GET", "/orchestration/executions/{id}", access=Access.CLIENT, answers={200: ExecutionAnswer})
def read_execution(call: Call, execution_id: str) -> Response:
    """Read a run, with its context and its newest 200 steps. A client sees its own only."""
    return _shown(call, execution_id)


@executions.operation(
    "GET", "/orchestration/executions/{id}/history", access=Access.CLIENT, query=PageQuery, answers={200: HistoryPage}
)
def read_execution_history(call: Call, execution_id: str, query: PageQuery) -> Response:
    """Read every transition of a run, oldest first."""
    after, count = decode_cursor(query.cursor, int, int) or (0, 0)
    with call.api.database.cursor() as cursor:
        own_run(call, cursor, execution_id)
        rows = runs.history(cursor, execution_id, query.limit, after)
    shown = rows[: query.limit]
    more = len(rows) > query.limit
    following = encode_cursor(shown[-1].seq, count + len(shown)) if more else None
    return answer(HistoryPage(items=execution_view.history(shown, count), next_cursor=following))


@executions.operation(
    "GET", "/orchestration/executions/{id}/steps", access=Access.CLIENT, query=PageQuery, answers={200: StepPage}
)
def read_execution_steps(call: Call, execution_id: str, query: PageQuery) -> Response:
    """Read all steps of a run, oldest first."""
    (after,) = decode_cursor(query.cursor, int) or (0,)
    with call.api.database.cursor() as cursor:
        row = own_run(call, cursor, execution_id)
        program = call.api.orchestration.programs.get(row.workflow_id).program
        openings = runs.step_openings(cursor, execution_id, query.limit, after=after)
        shown = openings[: query.limit]
        items = execution_view.steps(cursor, row, program, shown)
    following = encode_cursor(shown[-1].seq) if len(openings) > query.limit else None
    return answer(StepPage(items=items, next_cursor=following))


def _shown(call: Call, execution_id: str) -> Response:
    with call.api.database.cursor() as cursor:
        row = own_run(call, cursor, execution_id)
        program = call.api.orchestration.programs.get(row.workflow_id).program
        return answer(execution_view.shown(cursor, row, program))


def own_run(call: Call, cursor: Cursor, execution_id: str) -> RunRow:
    """The run, if whoever asks may see it. Raises NotFound."""
    row = runs.get(cursor, execution_id)
    owner = call.principal.client_id
    if row is None or (owner is not None and row.client_id != owner):
        raise NotFound
    return row


# --- steering --------------------------------------------------------------------------------------------


@executions.operation(
    "POST", "/orchestration/executions/{id}/cancel", access=Access.CLIENT, body=CancelBody, body_optional=True,
    answers={200: ExecutionAnswer}, refusals=(409,),
)  # fmt: skip
def cancel_execution(call: Call, execution_id: str, body: CancelBody) -> Response:
    """Cancel a run, and the runs it waits for. A call under way ends first.

    With `compensate`, the `compensate` steps of what was completed then run in reverse order, and the run ends as
    `compensated`, or as `failed` if one of them fails.
    """
    _check_own(call, execution_id)
    read = _reader(call, execution_id)
    by = call.principal.actor
    shown = _control(call).cancel(execution_id, body.reason, read, compensate=body.compensate, by=by)
    return answer(shown)


@executions.operation(
    "POST",
    "/orchestration/executions/{id}/pause",
    access=Access.OPERATOR,
    answers={200: ExecutionAnswer},
    refusals=(409,),
)
def pause_execution(call: Call, execution_id: str) -> Response:
    """Pause a run: it begins nothing more until it is resumed."""
    return answer(_control(call).pause(execution_id, _reader(call, execution_id), by=call.principal.actor))


@executions.operation(
    "POST",
    "/orchestration/executions/{id}/resume",
    access=Access.OPERATOR,
    answers={200: ExecutionAnswer},
    refusals=(409,),
)
def resume_execution(call: Call, execution_id: str) -> Response:
    """Let a paused run go on."""
    return answer(_control(call).resume(execution_id, _reader(call, execution_id), by=call.principal.actor))


@executions.operation(
    "POST",
    "/orchestration/executions/{id}/retry",
    access=Access.OPERATOR,
    answers={200: ExecutionAnswer},
    refusals=(409,),
)
def retry_execution(call: Call, execution_id: str) -> Response:
    """Let a failed or timed-out run go on from the step that failed, with a fresh budget of retries."""
    return answer(_control(call).retry(execution_id, _reader(call, execution_id), by=call.principal.actor))


@executions.operation(
    "POST", "/orchestration/executions/{id}/rerun", access=Access.OPERATOR, body=RerunBody, body_optional=True,
    answers={200: ExecutionAnswer}, refusals=(409,),
)  # fmt: skip
def rerun_execution(call: Call, execution_id: str, body: RerunBody) -> Response:
    """Run a run that has ended again from a step on, with the context as it was there, and as you edit it.

    What runs again calls under fresh idempotency keys.
    """
    read = _reader(call, execution_id)
    by = call.principal.actor
    return answer(_control(call).rerun(execution_id, body.from_step, body.context, read, by=by))


@executions.operation(
    "POST", "/orchestration/executions/{id}/skip", access=Access.OPERATOR, body=SkipBody,
    answers={200: ExecutionAnswer}, refusals=(409,),
)  # fmt: skip
def skip_step(call: Call, execution_id: str, body: SkipBody) -> Response:
    """Pass by a step: that at which a run waits or has failed, or any step of a paused one that lies ahead."""
    read = _reader(call, execution_id)
    return answer(_control(call).skip(execution_id, body.step, read, by=call.principal.actor))


@executions.operation(
    "PATCH", "/orchestration/executions/{id}/context", access=Access.OPERATOR, body=ContextBody,
    answers={200: ExecutionAnswer}, refusals=(409,),
)  # fmt: skip
def patch_execution_context(call: Call, execution_id: str, body: dict[str, Any]) -> Response:
    """Change the context (the variables) of a paused run by a merge patch (RFC 7386): null takes a name away."""
    read = _reader(call, execution_id)
    return answer(_control(call).edit(execution_id, body, read, by=call.principal.actor))


@executions.operation(
    "POST", "/orchestration/executions/{id}/signal", access=Access.CLIENT, body=SignalBody,
    answers={200: ExecutionAnswer}, refusals=(409,),
)  # fmt: skip
def signal_execution(call: Call, execution_id: str, body: SignalBody) -> Response:
    """Send a run a signal: it wakes a `wait_for_signal` of that name, and is kept if it comes early."""
    _check_own(call, execution_id)
    read = _reader(call, execution_id)
    return answer(_control(call).signal(execution_id, body.name, body.payload, read, by=call.principal.actor))


def _control(call: Call) -> Control:
    return call.api.orchestration.control


def _reader(call: Call, execution_id: str) -> Callable[[Cursor], ExecutionAnswer]:
    """Shows a run inside the transaction that changes it: the answer is the run as the act left it."""

    def read(cursor: Cursor) -> ExecutionAnswer:
        row = runs.get(cursor, execution_id)
        assert row is not None  # it is locked
        return execution_view.shown(cursor, row, call.api.orchestration.programs.get(row.workflow_id).program)

    return read


def _check_own(call: Call, execution_id: str) -> None:
    with call.api.database.cursor() as cursor:
        own_run(call, cursor, execution_id)
