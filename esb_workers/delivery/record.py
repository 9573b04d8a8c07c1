"""The third act: what became of an attempt, in the words of the store."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from esb_workers.delivery import slip
from esb_workers.delivery.answers import as_json, text_of
from esb_workers.delivery.call import Begun, Called, NotCalled, Result
from esb_workers.delivery.forming import Formed, NotFormed
from esb_workers.delivery.policy import Dead, Decision, Delivered, Retry, decide
from esb_workers.delivery.prepare import Prepared
from esb_workers.registry.retries import DEFAULT_POLICY, Answered, Failed, Outcome, RetryPolicy, nearest
from esb_workers.store import deliveries
from esb_workers.store.deliveries import Form, Onward, Reply
from esb_workers.store.engine import Database
from esb_workers.store.jobs import Claim, Done
from esb_workers.transport.http import MAX_BODY

#: What came back was to go on to somebody, and is longer than the bus takes.
ANSWER_TOO_LARGE: Final = "AnswerTooLarge"


class Record(NamedTuple):
    """A row for the store, and what is to happen in the same transaction if the row is still ours."""

    row: dict[str, Any]
    disables: str | None = None  # the instance that wants nothing any more
    reply: Reply | None = None
    onward: Onward | None = None  # the next stop of a routing slip
    formed: Form | None = None  # what is to go out, when it has been made only now


def of(result: Result, chance: Callable[[], float] = random.random) -> Record:
    """The record of an attempt, made or not."""
    if isinstance(result, NotCalled):
        return Record(_not_called(result))
    if isinstance(result, Begun):
        return Record(_begun(result, chance))
    if result.outcome.ok and not result.truncated:
        onward = slip.onward(result)
        return Record(_row(result, {"o": "ok"}), reply=None if onward else _reply(result), onward=onward)
    decision = _decision(result, chance)
    disables = result.chosen.instance.id if isinstance(decision, Dead) and decision.disables else None
    return Record(_row(result, _ending(decision, result.prepared)), disables)


def _row(called: Called, ending: dict[str, Any]) -> dict[str, Any]:
    claim = called.prepared.claim
    row = {"id": claim.id, "attempt": claim.attempt, "detail": _detail(called), "service": called.chosen.instance.id}
    return row | ending | _went_to(called.prepared)


def of_form(result: Formed | NotFormed | NotCalled, chance: Callable[[], float] = random.random) -> Record:
    """The record of making a form: then the delivery is ready anew, in the lane it is for, with a fresh budget."""
    if isinstance(result, NotCalled):
        return Record(_not_called(result))
    claim = result.prepared.claim
    if isinstance(result, Formed):
        check = {"check": result.receipt} if result.receipt else {}
        row = _base(claim) | {"o": "release", "at": {"raw": False, "form": True} | check}
        return Record(row, formed=Form(result.payload, result.headers, (claim.cursor or {}).get("then")))
    policy = nearest(result.prepared.plan.retry_policy, default=DEFAULT_POLICY)
    outcome = Failed(result.error_class, result.transient)
    decision = decide(outcome, claim.tries, policy, datetime.now(UTC), chance)
    detail = {"durationMs": result.duration_ms, "outcome": "failed", "errorClass": result.error_class}
    told = {"detail": detail | {"error": f"enrich: {result.error}"}}
    return Record(_base(claim) | _ending(decision, result.prepared) | told)


def release(claim: Claim) -> Record:
    """Of a delivery that was not started."""
    return Record(_base(claim) | {"o": "release"})


def write(database: Database, worker: int, records: Sequence[Record]) -> Done:
    """Write records; a row that is no longer ours is left alone, with all that hangs on it. Raises Unavailable."""
    extras = [record for record in records if record.disables or record.reply or record.onward or record.formed]
    return deliveries.record(
        database,
        worker,
        [record.row for record in records],
        disables={record.row["id"]: record.disables for record in extras if record.disables},
        replies={record.row["id"]: record.reply for record in extras if record.reply},
        forms={record.row["id"]: record.formed for record in extras if record.formed},
        onwards={record.row["id"]: record.onward for record in extras if record.onward},
    )


def _base(claim: Claim) -> dict[str, Any]:
    return {"id": claim.id, "attempt": claim.attempt}


def _went_to(prepared: Prepared) -> dict[str, Any]:
    """Which of several destinations the attempt was made at; of a single one there is nothing to say."""
    cursor = prepared.claim.cursor
    if not cursor or "any" not in cursor:
        return {}
    return {"at": {"i": prepared.place, "dest": prepared.service}}


def _not_called(result: NotCalled) -> dict[str, Any]:
    base = _base(result.prepared.claim)
    if result.ending == "held":
        return base | {"o": "hold", "held": result.reason, "delay_ms": result.retry_ms} | _went_to(result.prepared)
    return (
        base | _given_up(result.reason, result.prepared)
        if result.ending == "dead"
        else base
        | {
            "o": result.ending,
            "class": result.reason,
        }
    )


def _begun(begun: Begun, chance: Callable[[], float]) -> dict[str, Any]:
    policy = nearest(begun.prepared.plan.retry_policy, default=DEFAULT_POLICY)
    decision = _decided(begun.prepared, begun.outcome, policy, chance)
    detail: dict[str, Any] = {"durationMs": begun.duration_ms, "outcome": "ok" if begun.outcome.ok else "failed"}
    if begun.execution_id is not None:
        detail |= {"statusCode": 202, "responseBody": f'{{"executionId":"{begun.execution_id}"}}'}
    else:
        detail |= {"errorClass": begun.outcome.error_class, "error": begun.error}
    row = _base(begun.prepared.claim) | _ending(decision, begun.prepared) | _went_to(begun.prepared)
    return row | {"detail": detail}


def _decision(called: Called, chance: Callable[[], float]) -> Decision:
    if called.outcome.ok:  # and cut: the stop has done its part, but what it answered cannot go on whole
        return Dead(ANSWER_TOO_LARGE)
    policy = nearest(called.prepared.plan.retry_policy, called.chosen.instance.retry_policy, default=DEFAULT_POLICY)
    return _decided(called.prepared, called.outcome, policy, chance)


def _decided(prepared: Prepared, outcome: Outcome, policy: RetryPolicy, chance: Callable[[], float]) -> Decision:
    claim = prepared.claim
    again = (claim.cursor or {}).get("since")  # taken up again by hand: a fresh budget, of time as well
    begun = datetime.fromisoformat(again) if again else claim.created_at
    return decide(outcome, claim.tries, policy, datetime.now(UTC), chance, begun)


def _ending(decision: Decision, prepared: Prepared) -> dict[str, Any]:
    match decision:
        case Delivered():
            return {"o": "ok"}
        case Retry(delay_ms, error_class):
            return {"o": "retry", "delay_ms": delay_ms, "class": error_class}
        case Dead(error_class):
            return _given_up(error_class, prepared)


def _given_up(error_class: str, prepared: Prepared) -> dict[str, Any]:
    blocks = prepared.plan.blocks_when_dead and prepared.claim.okey is not None
    return {"o": "block" if blocks else "dead", "class": error_class}


def _detail(called: Called) -> dict[str, Any]:
    outcome = called.outcome
    detail: dict[str, Any] = {
        "durationMs": called.duration_ms,
        "outcome": "ok" if outcome.ok else "failed",
        "instance": called.chosen.instance.id,
    }
    if isinstance(outcome, Answered):
        detail["statusCode"], detail["responseBody"] = outcome.status, text_of(called.body[:MAX_BODY])
    if called.resent:
        detail["resent"] = True
    if not outcome.ok:
        detail |= {"errorClass": outcome.error_class, "error": called.error or outcome.error_class}
    return detail


def _reply(called: Called) -> Reply | None:
    """The reply that a message asked for: the first 2xx answer's body, to the service that the message names."""
    message = called.prepared.message
    if message is None or message.reply_to is None:
        return None
    return Reply(
        service=message.reply_to,
        source=called.chosen.instance.name,
        message_type=f"{message.type}.reply",
        payload=as_json(called.body),
        message_id=message.id,
    )
