"""Callbacks: answers to runs that wait, from those who have no key but were given an address."""

from __future__ import annotations

from flask import Response

from esb_api.answers import answer
from esb_api.call import Call
from esb_api.operations import Resource
from esb_api.principals import Access
from esb_api.schemas.orchestration import CallbackAnswer, CallbackBody
from esb_workers.errors import Conflict, IllegalTransition, NotFound
from esb_workers.orchestration.callbacks import Callbacks, digest
from esb_workers.store import executions
from esb_workers.store.json import dumps

callbacks = Resource("callbacks")


@callbacks.operation(
    "POST", "/orchestration/callbacks/{token}", access=Access.OPEN, body=CallbackBody, body_optional=True,
    answers={202: CallbackAnswer}, refusals=(404, 409), texts=("token",),
)  # fmt: skip
def answer_callback(call: Call, token: str, body: CallbackBody) -> Response:
    """Answer a run that waits for a signal, by the one-time address it has given out. No key is needed.

    The body, any object, is what the wait puts out. It is kept if it comes before the run waits.
    """
    target = Callbacks.of(call.api.settings).read(token)
    if target is None:
        raise NotFound
    with call.api.database.cursor() as cursor:
        outcome = executions.called_back(
            cursor, target.execution_id, digest(token), target.signal, dumps(body.model_extra or {})
        )
    if outcome is None:
        raise NotFound
    if outcome == "used":
        raise Conflict("this callback has been answered", code="callback_used")
    if outcome != "ok":
        raise IllegalTransition(f"a run that is {outcome} waits for nothing")
    call.api.orchestration.started()
    return answer(CallbackAnswer(execution_id=target.execution_id), 202)
