"""Trials of workflows: a definition run over mocked results, without a database and without waiting."""

from __future__ import annotations

from flask import Response

from esb_api import trial_view
from esb_api.answers import answer
from esb_api.call import Call
from esb_api.operations import Resource
from esb_api.principals import Access
from esb_api.schemas.trials import DraftTrialBody, TrialAnswer, TrialBody
from esb_workers.orchestration.definition import compile_definition

trials = Resource("workflow trials")


@trials.operation(
    "POST", "/orchestration/workflows/{id}/test", access=Access.OPERATOR, body=TrialBody, body_optional=True,
    answers={200: TrialAnswer},
)  # fmt: skip
def try_workflow(call: Call, workflow_id: str, body: TrialBody) -> Response:
    """Run a kept workflow over mocked results, by a clock that does not wait.

    It is the engine's own interpreter that runs. Nothing is stored, sent or called: services, messages and other runs
    come to what `mocks` says. Retries show their delays, without jitter.
    """
    row = call.api.orchestration.workflow(workflow_id)
    program = call.api.orchestration.programs.get(row.id).program
    return answer(trial_view.tried(program, body, row.name, row.version))


@trials.operation(
    "POST", "/orchestration/workflows/test", access=Access.OPERATOR, body=DraftTrialBody, answers={200: TrialAnswer}
)
def try_definition(call: Call, body: DraftTrialBody) -> Response:
    """Run a definition that is not kept over mocked results, by a clock that does not wait."""
    return answer(trial_view.tried(compile_definition(body.definition, call.api.orchestration.types()), body))
