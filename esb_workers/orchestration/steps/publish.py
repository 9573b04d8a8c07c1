"""`publish`: sends a message into the bus; routes decide who gets it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, NamedTuple

from pydantic import Field

from esb_workers.clock import from_wire, to_wire
from esb_workers.expressions.topics import is_message_type
from esb_workers.orchestration.failures import DELIVERY_FAILED, VALIDATION_ERROR, Failure, StepFailed
from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import At, Call, Completed, Config, Failed, Outcome, StepType, Waiting
from esb_workers.store.json import dumps


class PublishConfig(Config):
    """`config` of a publish step."""

    message_type: str = Field(min_length=1, max_length=1000)
    payload: Any = None
    headers: dict[str, str] = Field({}, description="Templates of headers.")
    source: str | None = Field(None, min_length=1, max_length=1024, description="Default: the workflow's name.")
    ordering_key: str | None = Field(None, min_length=1, max_length=1000)
    wait_for_delivery: bool = Field(False, description="Go on when the message is delivered, and fail if it is not.")


class _Compiled(NamedTuple):
    fields: Evaluate
    source: str | None
    wait: bool


#: Statuses in which a message's fate is still open.
_OPEN: Final = frozenset({"accepted", "scheduled", "routed"})
#: A message is looked at again after half of the time that it has taken so far, between these.
_SOONEST, _LATEST = timedelta(milliseconds=100), timedelta(seconds=10)


class Publish(StepType):
    """The message's id is the step's idempotency key: repeated after a crash, it is accepted once."""

    Config = PublishConfig
    effect = True
    compensates = True

    def compile(self, config: PublishConfig, at: At) -> _Compiled:
        if "${" not in config.message_type and not is_message_type(config.message_type):
            at.fault("messageType", "must be words of letters, digits, `_` and `-`, parted by dots")
        written = {
            "messageType": config.message_type,
            "payload": config.payload,
            "headers": config.headers,
            "source": config.source,
            "orderingKey": config.ordering_key,
        }
        parts = {name: at.template(value, name) for name, value in written.items()}
        return _Compiled(
            lambda names: {name: part(names) for name, part in parts.items()}, config.source, config.wait_for_delivery
        )

    def prepare(self, call: Call) -> dict[str, Any]:
        fields: dict[str, Any] = call.config.fields(call.names)
        if not isinstance(fields["messageType"], str) or not is_message_type(fields["messageType"]):
            raise StepFailed(Failure(VALIDATION_ERROR, f"messageType is none: {fields['messageType']!r:.100}"))
        if fields["source"] is None:
            fields["source"] = call.names["execution"]["workflow"]
        fields["headers"] = {name: _text(value) for name, value in fields["headers"].items()}
        for name in ("source", "orderingKey"):
            fields[name] = None if fields[name] is None else _text(fields[name])
        if fields["orderingKey"] is not None and not 1 <= len(fields["orderingKey"]) <= 255:
            raise StepFailed(Failure(VALIDATION_ERROR, "orderingKey must have 1 to 255 characters"))
        return fields

    def run(self, call: Call) -> Outcome:
        if call.memo is None:
            message_id, since = call.world.publish(call.idempotency_key, call.input), call.now
        else:
            message_id, since = call.memo["messageId"], from_wire(call.memo["since"])
        if not call.config.wait:
            return Completed({"messageId": message_id})
        status = call.world.message_status(message_id)
        if status == "delivered":
            return Completed({"messageId": message_id, "status": status})
        if status in _OPEN:
            pause = min(max((call.now - since) / 2, _SOONEST), _LATEST)
            memo = {"messageId": message_id, "since": to_wire(since)}
            return Waiting("delivery", call.now + pause, memo)
        told = f"the message ended as {status}" if status else "the message is gone"
        details = {"messageId": message_id, "status": status}
        return Failed(Failure(DELIVERY_FAILED, told, details=details))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)
