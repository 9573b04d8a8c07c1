"""Acts on many runs at once."""

from __future__ import annotations

from typing import Any, Final

from flask import Response

from esb_api import execution_view
from esb_api.answers import answer
from esb_api.call import Call
from esb_api.operations import Resource
from esb_api.principals import Access
from esb_api.schemas.bulk import BulkAnswer, BulkBody, BulkFilterBody, DryBulkAnswer, StartedBulkAnswer
from esb_workers.errors import FieldError, IllegalTransition, Invalid, NotFound
from esb_workers.store import bulk as store
from esb_workers.store.ids import as_id

bulk = Resource("bulk")

#: Runs that a dry run shows.
SAMPLE: Final = 10


@bulk.operation(
    "POST", "/orchestration/executions/bulk", access=Access.OPERATOR, body=BulkBody,
    answers={200: DryBulkAnswer, 202: StartedBulkAnswer},
)  # fmt: skip
def act_on_executions(call: Call, body: BulkBody) -> Response:
    """Cancel, pause, resume or retry all runs that fit a filter and whose state allows it.

    At least one filter must be given. With `dryRun`, 200 and what it would take; nothing is done.
    """
    filters = _filters(body.filter)
    if all(value is None for value in filters.values()):
        raise Invalid([FieldError("filter", "must name at least one field: an empty filter would take everything")])
    # Ids of which none is one find nothing: to the store an empty list would mean any.
    nothing = any(isinstance(value, list) and not value for value in filters.values())
    wanted = [] if nothing else store.statuses(body.action, filters["status"])
    if body.dry_run:
        with call.api.database.cursor() as cursor:
            matched = store.count(cursor, filters, wanted)
            rows = store.sample(cursor, filters, wanted, SAMPLE)
        return answer(DryBulkAnswer(matched=matched, sample=[execution_view.listed(row) for row in rows]))
    row: dict[str, object] = {
        "action": body.action,
        "reason": body.reason,
        "compensate": body.compensate,
        "filter": body.filter.model_dump_json(by_alias=True, exclude_none=True),
    }
    bulk_id, matched = call.api.bus.tell_many(row, filters, wanted, by=call.principal.actor)
    started = StartedBulkAnswer(bulk_id=bulk_id, matched=matched)
    return answer(started, 202, Location=f"/orchestration/executions/bulk/{bulk_id}")


@bulk.operation(
    "GET", "/orchestration/executions/bulk/{id}", access=Access.OPERATOR, answers={200: BulkAnswer}
)  # fmt: skip
def read_bulk(call: Call, bulk_id: str) -> Response:
    """Read how far an act on many runs has come."""
    return answer(_read(call, bulk_id))


@bulk.operation(
    "POST", "/orchestration/executions/bulk/{id}/cancel", access=Access.OPERATOR, answers={200: BulkAnswer},
    refusals=(409,),
)  # fmt: skip
def cancel_bulk(call: Call, bulk_id: str) -> Response:
    """Tell no more runs; those that were told stay told."""
    _read(call, bulk_id)
    with call.api.database.cursor() as cursor:
        if not store.cancel(cursor, bulk_id):
            raise IllegalTransition("Nothing of this is left to be done.")
    return answer(_read(call, bulk_id))


def _read(call: Call, bulk_id: str) -> BulkAnswer:
    with call.api.database.cursor() as cursor:
        row = store.get(cursor, bulk_id)
    if row is None:
        raise NotFound
    return BulkAnswer(**row._asdict())


def _filters(body: BulkFilterBody) -> dict[str, Any]:
    return {
        "id": _ids(body.ids),
        "workflow_id": _ids(_listed(body.workflow_id)),
        "client_id": _ids(_listed(body.client_id)),
        "workflow_name": _listed(body.workflow_name),
        "status": _listed(body.status),
        "error_class": _listed(body.error_class),
        "correlation_id": _listed(body.correlation_id),
        "business_key": _listed(body.business_key),
        "since": body.from_,
        "until": body.to,
    }


def _listed(value: Any) -> list[Any] | None:
    return [value] if isinstance(value, str) else value


def _ids(given: list[str] | None) -> list[str] | None:
    return None if given is None else [known for text in given if (known := as_id(text)) is not None]
