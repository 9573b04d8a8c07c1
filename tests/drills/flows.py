"""The workflows of the drills, what their runs must come to, and the service they call."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.support.receiver import Hit, Receiver, Reply

SERVICE = "shop"
ITEMS, ROUNDS = 4, 2
#: As often the service refuses each `reserve`; the step may be retried no more than that.
REFUSALS = 2
#: Runs begin to call between zero and this many milliseconds after their start.
SPREAD, STAGGER = 40, 400


def _call(id_: str, method: str | None = None, **over: Any) -> dict[str, Any]:
    payload = {"n": "${n}"} | over.pop("payload", {})
    config = {"serviceName": SERVICE, "method": method or id_, "payload": payload, "resultPath": f"got.{id_}"}
    return {"id": id_, "type": "service_call", "config": config, **over}


def _undone(id_: str, by: str) -> dict[str, Any]:
    return _call(id_, compensate={key: value for key, value in _call(by).items() if key != "id"})


_PACE = {"id": "pace", "type": "wait", "config": {"duration": "${pace}"}}
_RETRIES = {"maxRetries": REFUSALS, "backoffStrategy": "fixed", "initialDelay": 200}

CHILD = {"flow": "sequential", "steps": [_call("child")], "output": {"doubled": "${n * 2}"}}

ORDER = {
    "flow": "sequential",
    "steps": [
        _PACE,
        _call("reserve", retryPolicy=_RETRIES),
        {
            "id": "both",
            "type": "parallel",
            "config": {"branches": [{"name": name, "steps": [_call(name)]} for name in ("left", "right")]},
        },
        {
            "id": "items",
            "type": "foreach",
            "config": {
                "items": "${range}",
                "maxConcurrency": 2,
                "steps": [_call("item", payload={"i": "${index}"})],
            },
        },
        {"id": "approval", "type": "wait_for_signal", "config": {"signal": "go", "resultPath": "approved"}},
        {
            "id": "below",
            "type": "sub_workflow",
            "config": {"workflowName": "drill-child", "input": {"n": "${n}"}, "resultPath": "below"},
        },
        {
            "id": "rounds",
            "type": "loop",
            "config": {
                "while": f"count < {ROUNDS}",
                "maxIterations": 10,
                "steps": [
                    _call("round", payload={"i": "${count}"}),
                    {"id": "count", "type": "set", "config": {"variables": {"count": "${count + 1}"}}},
                ],
            },
        },
    ],
    "variables": {"count": 0, "range": list(range(ITEMS))},
    "output": {
        "reserved": "${got.reserve.did}",
        "both": "${steps.both.output.left.n + steps.both.output.right.n}",
        "items": "${steps.items.output}",
        "approved": "${approved.n}",
        "below": "${below.doubled}",
        "count": "${count}",
    },
}

SAGA = {
    "flow": "sequential",
    "steps": [_PACE, _undone("book", "unbook"), _undone("pay", "unpay"), _call("ship")],
    "errorHandling": {"onError": "compensate"},
}

WORKFLOWS = {
    "drill-child": CHILD,
    "drill-order": ORDER,
    "drill-saga": SAGA,
    "drill-relaxed-order": ORDER | {"durability": "relaxed"},
    "drill-relaxed-saga": SAGA | {"durability": "relaxed"},
}


class Ending(NamedTuple):
    """What a run must come to: its status, output, error class, and the paths of its completed steps, sorted."""

    status: str
    output: Any
    error_class: str | None
    completed: list[str]


class Effect(NamedTuple):
    """One thing done in the world: `operation` for run `n`, for its item or round `i`."""

    operation: str
    n: int
    i: int | None = None


def workflow_of(n: int) -> str:
    """Every fifth run fails at its last step, and is undone; every other one may repeat more than a call."""
    return f"drill-{'relaxed-' if n % 2 else ''}{'saga' if is_saga(n) else 'order'}"


def is_saga(n: int) -> bool:
    """Whether run `n` is one that fails and is undone."""
    return n % 5 == 4


def context_of(n: int) -> dict[str, Any]:
    """What run `n` starts with."""
    return {"n": n, "pace": n % SPREAD * STAGGER}


def ending_of(n: int) -> Ending:
    """How run `n` must end, whatever has happened meanwhile."""
    if is_saga(n):
        return Ending("compensated", None, "HttpStatus.409", sorted(["pace", "book", "pay"]))
    output = {
        "reserved": "reserve",
        "both": 2 * n,
        "items": [{"did": "item", "n": n, "i": i} for i in range(ITEMS)],
        "approved": n,
        "below": 2 * n,
        "count": ROUNDS,
    }
    paths = ["pace", "reserve", "both", "both[left]/left", "both[right]/right", "items", "approval", "below", "rounds"]
    paths += [f"items[{i}]/item" for i in range(ITEMS)]
    paths += [f"rounds[{i}]/{step}" for i in range(ROUNDS) for step in ("round", "count")]
    return Ending("completed", output, None, sorted(paths))


def effects_of(n: int, run: str) -> Iterator[tuple[Effect, str | None]]:
    """What run `n` must do in the world, each with its Idempotency-Key (None: of a run below it)."""
    if is_saga(n):
        for step in ("book", "pay"):
            yield Effect(step, n), f"{run}:{step}"
            yield Effect(f"un{step}", n), f"{run}:{step}:compensate"
        return
    yield Effect("reserve", n), f"{run}:reserve"
    yield Effect("child", n), None
    for name in ("left", "right"):
        yield Effect(name, n), f"{run}:both[{name}]/{name}"
    for i in range(ITEMS):
        yield Effect("item", n, i), f"{run}:items[{i}]/item"
    for i in range(ROUNDS):
        yield Effect("round", n, i), f"{run}:rounds[{i}]/round"


class Shop:
    """The service, as a good one is: a repeat under a key it knows does nothing and is answered as before."""

    def __init__(self, receiver: Receiver) -> None:
        self.done: dict[Effect, set[str]] = defaultdict(set)
        self.repeats = 0  # of what was done already
        self._seen: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        receiver.answer = self._answer

    def _answer(self, hit: Hit) -> Reply:
        operation, body, key = hit.path.strip("/"), hit.json, hit.key or ""
        with self._lock:
            self._seen[key] += 1
            if operation == "ship":
                return Reply(409)
            if operation == "reserve" and self._seen[key] <= REFUSALS:
                return Reply(429)
            keys = self.done[Effect(operation, body["n"], body.get("i"))]
            self.repeats += key in keys
            keys.add(key)
        return Reply(body=json.dumps({"did": operation, **body}).encode(), delay=0.01)
