"""The bus's own state."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from esb_api.params import PageQuery
from esb_api.schemas.base import Answer
from esb_api.schemas.types import Moment, Words
from esb_workers.queues import PoolName

Part = Literal["ok", "failed"]


class LiveAnswer(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ReadyAnswer(Answer):
    """Whether the bus can do its work."""

    status: Annotated[
        Literal["ok", "degraded", "failed"],
        Field(description="`degraded`: the broker is away; work goes on, by at most one sweep later."),
    ]
    database: Part
    broker: Annotated[Literal["ok", "failed", "none"], Field(description="`none`: no broker is configured.")]
    schema_: Annotated[Part, Field(alias="schema", description="`failed`: run `esb migrate`.")]
    workers: Annotated[dict[PoolName, int], Field(description="Live worker processes of each pool.")]


class QueueAnswer(Answer):
    """What waits in a pool."""

    pool: Annotated[str, Field(description="A pool, or a queue of plug-in steps: `steps.NAME`.")]
    due: Annotated[int, Field(description="Rows that are due and not held.")]
    oldest_due_age_ms: int
    in_flight: int
    workers: int


class QueuesAnswer(Answer):
    """Every pool."""

    items: list[QueueAnswer]


class InfoAnswer(Answer):
    """What this bus is."""

    name: str
    version: str
    schema_version: int
    python: str
    postgresql: str
    started_at: Annotated[Moment, Field(description="Start of the process that answers.")]
    max_body_bytes: int
    retention_days: int
    quotas: Annotated[Literal["redis", "postgresql"], Field(description="Where quotas are counted.")]


class AuditQuery(PageQuery):
    """Filters of the audit trail."""

    resource: Annotated[Words | None, Field(description="`service`, `client`, `route`, `workflow` …")] = None
    resource_id: Words | None = None
    actor: Annotated[Words | None, Field(description="`operator` or `client:ID`.")] = None
    from_: Annotated[Moment | None, Field(alias="from", description="Inclusive.")] = None
    to: Annotated[Moment | None, Field(description="Exclusive.")] = None


class AuditAnswer(Answer):
    """One change of a registration."""

    id: str
    at: Moment
    actor: str
    action: str
    resource: str
    resource_id: str
    name: str | None
    detail: dict[str, Any] | None


class AuditPage(Answer):
    """Changes, newest first."""

    items: list[AuditAnswer]
    next_cursor: str | None
