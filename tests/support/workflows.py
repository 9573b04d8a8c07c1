"""A bench for workflows: a database of its own, services that a test scripts, and a worker that it drives by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from esb_workers.orchestration.engine import Runner
from esb_workers.orchestration.failures import Failure
from esb_workers.orchestration.limits import limits_of
from esb_workers.orchestration.programs import Programs
from esb_workers.orchestration.publishing import Publisher
from esb_workers.orchestration.world import Answer, ServiceReply, ServiceRequest
from esb_workers.store import jobs, starts, workers, workflows
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id
from esb_workers.store.starts import Start, Started

POOL = 3


class ScriptedServices:
    """Answers as a test says; remembers every call."""

    def __init__(self) -> None:
        self.calls: list[ServiceRequest] = []
        self.replies: dict[str, list[ServiceReply]] = {}
        self.timeouts: dict[str, int] = {}
        self.on_call: Callable[[ServiceRequest], ServiceReply | None] = lambda request: None
        self._lock = threading.Lock()

    def call(self, request: ServiceRequest) -> ServiceReply:
        with self._lock:
            self.calls.append(request)
            queue = self.replies.get(f"{request.service}/{request.path}") or self.replies.get(request.service) or []
            scripted = queue.pop(0) if queue else None
        return self.on_call(request) or scripted or Answer(200, {})

    def longest(self, service: str, revision: int) -> int:
        return self.timeouts.get(service, 10_000)

    def bodies(self) -> list[Any]:
        return [orjson.loads(call.body) if call.body else None for call in self.calls]


class Silent:
    """A ringer that nobody hears: tests look for themselves."""

    def ring(self, pool: str) -> None:
        pass


def down(status: int = 503, *, retryable: bool = True) -> Failure:
    """What a service that is not well makes of a call."""
    return Failure(
        f"HttpStatus.{status}", f"answered {status}", retryable, details={"statusCode": status, "body": None}
    )


class Bench:
    """One workflow engine and its database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.services = ScriptedServices()
        self.programs = Programs(database)
        self.messages = Publisher(database, lambda: None)
        self.runner = self.new_runner()
        with database.cursor() as cursor:
            self.worker = workers.register(cursor, POOL, "test", 1, "0", 60.0)

    def new_runner(self, **kw: Any) -> Runner:
        return Runner(self.database, self.programs, self.services, self.messages, random=lambda: 0.0, **kw)

    def define(self, steps: list[Any], *, name: str | None = None, version: str = "1.0.0", **definition: Any) -> str:
        """Store a workflow; its id."""
        row = {
            "id": new_id(),
            "name": name or f"w{time.monotonic_ns()}",
            "version": version,
            "description": None,
            "definition": orjson.dumps({"steps": steps, **definition}).decode(),
        }
        with self.database.raw_transaction() as cursor:
            assert workflows.insert(cursor, row)
        return row["id"]

    def start(self, workflow_id: str, context: dict[str, Any] | None = None, **over: Any) -> str:
        """Start a run; its id."""
        outcome, id_ = self.begin(workflow_id, context, **over)
        assert outcome == "ok" and id_ is not None, outcome
        return id_

    def begin(self, workflow_id: str, context: dict[str, Any] | None = None, **over: Any) -> Started:
        """Start a run; what came of it."""
        workflow = self.programs.get(workflow_id)
        run = new_id()
        start = Start(
            id=run,
            workflow=workflow_id,
            lane=workflow.lane_id,
            name=workflow.name,
            correlation="corr-1",
            input=orjson.dumps(context or {}).decode(),
            timeout=workflow.program.timeout,
            limits=limits_of(workflow, context or {}, run, "corr-1"),
        )
        with self.database.raw_transaction() as cursor:
            return starts.execute(cursor, replace(start, **over))

    def claim(self, limit: int = 32) -> list[jobs.Claim]:
        with self.database.cursor() as cursor:
            jobs.due(cursor, POOL)
            return jobs.claim(cursor, POOL, self.worker, limit, limit, lease_seconds=60)

    def pump(self, rounds: int = 200) -> None:
        """Run whatever is ready, until nothing is."""
        for _ in range(rounds):
            claims = self.claim()
            if not claims:
                return
            for claim in claims:
                self.runner.run(claim.id, claim.attempt, strict=claim.losses > 0)
        raise AssertionError("never came to rest")

    def run(self, steps: list[Any], context: dict[str, Any] | None = None, **definition: Any) -> dict[str, Any]:
        """Define, start, and run until all timers are due at once; the execution."""
        id_ = self.start(self.define(steps, **definition), context)
        self.settle()
        return self.execution(id_)

    def settle(self) -> None:
        """Run until nothing is ready; bring timers forward until none is left."""
        self.pump()
        while self.hurry():
            self.pump()

    def hurry(self) -> int:
        """Wait for the next timer of at most a few seconds; whether there was one."""
        with self.database.cursor() as cursor:
            seconds = jobs.seconds_until_due(cursor, POOL)
        if seconds is None or seconds > 5:
            return 0
        threading.Event().wait(seconds + 0.002)
        return 1

    def execution(self, id_: str) -> dict[str, Any]:
        columns = ("status", "context", "output", "error", "error_class", "fence")
        with self.database.cursor() as cursor:
            cursor.execute(f"select {', '.join(columns)} from execution where id = %s", (id_,))
            row = dict(zip(columns, cursor.fetchone(), strict=True))
        for name in ("context", "output", "error"):
            row[name] = orjson.loads(row[name]) if row[name] is not None else None
        return {"id": id_, **row}

    def events(self, id_: str) -> list[tuple[str, str | None, dict[str, Any]]]:
        """(type, path, data) of the history, in order."""
        with self.database.cursor() as cursor:
            cursor.execute("select type, path, data from event where execution_id = %s order by seq", (id_,))
            return [(t, p, orjson.loads(d) if d else {}) for t, p, d in cursor.fetchall()]

    def types(self, id_: str) -> list[str]:
        return [f"{t} {p}" if p else t for t, p, _ in self.events(id_)]

    def lose_leases(self) -> None:
        """What a sweep does after the worker has died: everything in flight is ready again."""
        with self.database.cursor() as cursor:
            cursor.execute("update job set lease_until = now() - interval '1 s' where state = 'f'")
            jobs.sweep(cursor, lease_seconds=0)

    def query(self, sql: str, *args: Any) -> list[Any]:
        with self.database.cursor() as cursor:
            cursor.execute(sql, args)
            return cursor.fetchall()


def service(id_: str, name: str = "svc", method: str = "op", **over: Any) -> dict[str, Any]:
    """A service_call step."""
    config = {"serviceName": name, "method": method, **over.pop("config", {})}
    return {"id": id_, "type": "service_call", "config": config, **over}
