"""`service_call`: calls an operation of a registered service and takes its answer into the context."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator

from esb_workers.orchestration.failures import VALIDATION_ERROR, Failure, StepFailed
from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import (
    At,
    Call,
    Completed,
    Config,
    Failed,
    Mention,
    Outcome,
    StepType,
    Waiting,
)
from esb_workers.orchestration.steps.fields import RESULT_PATH
from esb_workers.orchestration.world import Answer, Held, ServiceRequest
from esb_workers.store.json import dumps


class ServiceCallConfig(Config):
    """`config` of a service_call step. `method` names the operation; `httpMethod` and `path` override."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["method"]}, {"required": ["path"]}]})

    service_name: str = Field(min_length=1, max_length=300, description="Name, or name@RANGE.")
    method: str | None = Field(None, min_length=1, max_length=1000)
    payload: Any = None
    http_method: Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] | None = None
    path: str | None = Field(None, min_length=1, max_length=2000)
    query: dict[str, Any] = Field({}, description="Templates of query parameters.")
    headers: dict[str, str] = Field({}, description="Templates of headers.")
    result_path: RESULT_PATH = None

    @model_validator(mode="after")
    def _where_to(self) -> Self:
        if self.method is None and self.path is None:
            raise ValueError("needs method or path")
        return self


class _Compiled(NamedTuple):
    named: str
    service: Evaluate
    path: Evaluate
    http_method: str
    payload: Evaluate | None
    query: Evaluate
    headers: Evaluate
    result_path: str | None


class ServiceCall(StepType):
    """One call is one attempt. The answer's JSON object is merged into the context, or put at `resultPath`."""

    Config = ServiceCallConfig
    effect = True
    compensates = True

    def compile(self, config: ServiceCallConfig, at: At) -> _Compiled:
        field = "method" if config.path is None else "path"
        return _Compiled(
            config.service_name,
            at.template(config.service_name, "serviceName"),
            at.url_text(config.path or config.method or "", field),
            config.http_method or "POST",
            at.template(config.payload, "payload") if "payload" in config.model_fields_set else None,
            at.template(config.query, "query"),
            at.template(config.headers, "headers"),
            config.result_path,
        )

    def mentions(self, config: _Compiled) -> Iterable[Mention]:
        if "${" not in config.named:
            yield Mention("serviceName", "service", config.named)

    def prepare(self, call: Call) -> Any:
        config: _Compiled = call.config
        shown: dict[str, Any] = {
            "serviceName": _text(config.service(call.names), "serviceName"),
            "httpMethod": config.http_method,
            "path": config.path(call.names),
        }
        if query := {name: _plain(value) for name, value in config.query(call.names).items()}:
            shown["query"] = query
        if headers := {name: _plain(value) for name, value in config.headers(call.names).items()}:
            shown["headers"] = headers
        if config.payload is not None:
            shown["payload"] = config.payload(call.names)
        return shown

    def patience(self, call: Call) -> int:
        """A service may be given longer than a step that names no timeout."""
        world = call.world
        return call.step.timeout or max(self.longest, world.services.longest(call.input["serviceName"], world.revision))

    def run(self, call: Call) -> Outcome:
        reply = call.world.services.call(_request(call))
        if isinstance(reply, Answer):
            at = call.config.result_path
            return Completed(reply.value, merge=at is None and isinstance(reply.value, dict), at=at)
        if isinstance(reply, Held):
            return _hold(call, reply)
        return Failed(reply)


def _request(call: Call) -> ServiceRequest:
    shown = call.input
    return ServiceRequest(
        service=shown["serviceName"],
        path=shown["path"],
        http_method=shown["httpMethod"],
        body=dumps(shown["payload"]).encode() if "payload" in shown else b"",
        headers=shown.get("headers", {}),
        query=shown.get("query", {}),
        idempotency_key=call.idempotency_key,
        correlation_id=call.world.correlation_id,
        traceparent=call.world.traceparent,
        timeout_ms=call.step.timeout,
        allowed=call.world.allowed,
        revision=call.world.revision,
    )


def _hold(call: Call, held: Held) -> Waiting:
    """The run waits for the service; the step's timeout ends that, if it has one."""
    until = call.now + timedelta(milliseconds=held.retry_ms)
    return Waiting(f"service:{held.reason}", until, {"reason": held.reason})


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value:
        raise StepFailed(Failure(VALIDATION_ERROR, f"{field} is no name: {value!r:.100}"))
    return value


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return dumps(value)
    return value if isinstance(value, str) else dumps(value)
