"""Runs of the drills' workflows: started, signalled, and judged at their end."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2
import requests

from tests.drills.flows import SERVICE, WORKFLOWS, Shop, context_of, effects_of, ending_of, is_saga, workflow_of
from tests.support.receiver import Receiver

if TYPE_CHECKING:
    from tests.drills.scene import Scene

#: Whoever starts and signals runs goes on for so long, seconds: longer than any fault of a drill.
PATIENCE = 120.0
_SHOWN = 3
#: What a history says once of each place.
_ONCE = "('run.started', 'run.completed', 'run.compensated', 'step.completed', 'step.compensated', 'branch.completed', 'item.completed', 'round.started')"


class Runs:
    """All runs of a scene, by number; their ids are known once they are accepted."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.ids: dict[int, str] = {}
        receiver = scene.stack.enter_context(Receiver())  # of calls, not messages: it keeps its own journal
        self.shop = Shop(receiver)
        service = {"name": SERVICE, "version": "1.0.0", "endpoint": receiver.url}
        scene.bus.create("/services", service)
        for name, definition in WORKFLOWS.items():
            scene.bus.create("/orchestration/workflows", {"name": name, "version": "1.0.0", "definition": definition})

    def start(self, numbers: Iterable[int]) -> None:
        """Start these runs; each is tried, under one key, until it is accepted."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._start, numbers))

    @contextmanager
    def signalled(self, numbers: Iterable[int], per_second: float) -> Iterator[None]:
        """Signals to these runs during the block, some before they are waited for; it ends when all are sent."""
        thread = threading.Thread(target=self._signal_all, args=(list(numbers), per_second), daemon=True)
        thread.start()
        yield
        thread.join(PATIENCE * 2)
        assert not thread.is_alive(), "signals hang"

    def under_way(self) -> int:
        """Runs, with those below them, that have not ended; -1 while the database is away."""
        try:
            return int(self._scene.sql("select count(*) from execution where finished_at is null")[0][0])
        except psycopg2.OperationalError:
            return -1

    def _start(self, n: int) -> None:
        body = {"workflowName": workflow_of(n), "initialContext": context_of(n)}
        answer = self._insist("/orchestration/execute", body, 202, {"Idempotency-Key": f"drill-run-{n}"})
        self.ids[n] = answer["executionId"]

    def _signal_all(self, numbers: list[int], per_second: float) -> None:
        for n in numbers:
            if is_saga(n):
                continue
            body = {"name": "go", "payload": {"n": n}}
            self._insist(f"/orchestration/executions/{self.ids[n]}/signal", body, 200, {})
            time.sleep(1 / per_second)

    def _insist(self, path: str, body: Any, wanted: int, headers: dict[str, str]) -> Any:
        url = f"http://127.0.0.1:{self._scene.bus.port}{path}"
        headers = {"X-API-Key": self._scene.bus.admin_key} | headers
        deadline, lost, told = time.monotonic() + PATIENCE, False, ""
        while time.monotonic() < deadline:
            try:
                answer = requests.post(url, json=body, headers=headers, timeout=30)
            except requests.RequestException as error:
                lost, told = True, str(error)
            else:
                if answer.status_code == wanted:
                    return answer.json()
                told = f"{answer.status_code} {answer.text}"
                if answer.status_code == 409 and wanted == 200 and lost:
                    return None  # the signal whose answer was lost has let the run end meanwhile
                lost = lost or answer.status_code >= 500
            time.sleep(0.25)
        raise AssertionError(f"{path} was not accepted within {PATIENCE:.0f} s: {told}")

    # --- judging -----------------------------------------------------------------------------------------

    def settle(self, patience: float) -> None:
        """Wait until all runs have ended, and judge them."""
        deadline = time.monotonic() + patience
        while (left := self.under_way()) and time.monotonic() < deadline:
            time.sleep(0.2)
        self._scene.require(not left, "I1 lost", f"{left} runs have not ended after {patience:.0f} s")
        judges: tuple[Callable[[], Iterator[tuple[str, str]]], ...] = (self._endings, self._effects, self._journal)
        for judge in judges:
            found = list(judge())
            for invariant, text in found[:_SHOWN]:
                self._scene.require(False, invariant, text)
            if len(found) > _SHOWN:
                self._scene.require(False, found[0][0], f"… and {len(found) - _SHOWN} more")
        self._scene.result.accepted += len(self.ids)
        self._scene.result.arrived += len(self.shop.done)
        self._scene.result.twice += self.shop.repeats

    def _endings(self) -> Iterator[tuple[str, str]]:
        rows = self._scene.sql("select id::text, status, output, error_class from execution")
        ended = {id_: [status, output and json.loads(output), error] for id_, status, output, error in rows}
        completed: dict[str, list[str]] = defaultdict(list)
        for id_, path in self._scene.sql("select execution_id::text, path from event where type = 'step.completed'"):
            completed[id_].append(path)
        for n, id_ in self.ids.items():
            want = ending_of(n)
            status, output, error_class = ended.get(id_, ["lost", None, None])
            if (status, output, error_class) != want[:3]:
                yield "ending", f"run {n} ({id_}) should be {want[:3]}, is {(status, output, error_class)}"
            elif sorted(completed[id_]) != want.completed:
                yield "ending", f"run {n} ({id_}) should complete {want.completed}, did {sorted(completed[id_])}"
        below = [id_ for id_, rest in ended.items() if id_ not in set(self.ids.values())]
        orders = sum(not is_saga(n) for n in self.ids)
        if len(below) != orders:
            yield "ending", f"{orders} runs start one each, but {len(below)} were started"

    def _effects(self) -> Iterator[tuple[str, str]]:
        wanted = {effect: key for n, id_ in self.ids.items() for effect, key in effects_of(n, id_)}
        for effect in wanted.keys() | self.shop.done.keys():
            keys = self.shop.done.get(effect, set())
            if effect not in wanted:
                yield "effect", f"{effect} was not to be done"
            elif len(keys) != 1 or wanted[effect] not in (None, *keys):
                yield "effect", f"{effect} was to be done once, under {wanted[effect]}: {sorted(keys)}"

    def _journal(self) -> Iterator[tuple[str, str]]:
        doubles = (
            f"select execution_id, type, path, visit, iteration, count(*) from event where type in {_ONCE}"
            " group by 1, 2, 3, 4, 5 having count(*) > 1"
        )
        for row in self._scene.sql(doubles):
            yield "journal", f"twice: {row}"
        gaps = (  # the nil id marks what others did to a run, such as a signal: that is no strand
            "select job_id, count(*), min(n), max(n) from event where job_id <> '00000000-0000-0000-0000-000000000000'"
            " group by 1 having min(n) <> 1 or max(n) <> count(*)"
        )
        for row in self._scene.sql(gaps):
            yield "journal", f"a strand's events are not numbered through: {row}"
