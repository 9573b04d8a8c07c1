"""What a workflow bounds: how many of its runs are under way, and how fast they start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from esb_workers.orchestration import flow
from esb_workers.orchestration.failures import VALIDATION_ERROR, Failure, StepFailed
from esb_workers.orchestration.programs import Workflow
from esb_workers.orchestration.state import State
from esb_workers.store.json import dumps
from esb_workers.store.starts import Limits

#: Longest key of a concurrency limit, characters.
MAX_KEY: Final = 500


def limits_of(workflow: Workflow, given: Mapping[str, Any], run: str, correlation_id: str) -> Limits:
    """The bounds for a run that is about to start. Raises StepFailed if the limit's key cannot be computed."""
    program = workflow.program
    bound = program.concurrency
    if bound is None:
        return Limits(rate=program.rate)
    key = workflow.name
    if bound.key is not None:
        execution = {"id": run, "workflow": workflow.name, "version": workflow.version, "correlationId": correlation_id}
        state = State(context={**program.variables, **given})
        value = bound.key(flow.names_of(program, state, execution, dict(given), {}))
        key = f"{workflow.name}:{value if isinstance(value, str) else dumps(value)}"
        if len(key) > MAX_KEY:
            raise StepFailed(
                Failure(VALIDATION_ERROR, f"the key of the concurrency limit has over {MAX_KEY} characters")
            )
    return Limits(key, bound.limit, bound.on_limit, program.rate)
