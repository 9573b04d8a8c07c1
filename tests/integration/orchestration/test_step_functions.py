"""Steps written as functions: their schema, their errors, and that only workers of their queue run them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esb_workers.errors import Invalid, SettingsError
from esb_workers.orchestration import catalogue
from esb_workers.orchestration.definition import compile_definition
from esb_workers.orchestration.functions import StepContext, StepError, step
from esb_workers.orchestration.steps import step_types
from esb_workers.orchestration.steps.schema import remote
from esb_workers.settings import Settings
from esb_workers.store import jobs, step_queues, workers
from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.runs import define, ended, execute
from tests.support.workflows import Bench

Eventually = Callable[..., None]
PLUGIN = Path(__file__).parents[3] / "examples/06_plugin"


@step("double", queue="sums")
def double(n: int, times: int = 2) -> dict[str, Any]:
    return {"n": n * times}


@step("whoami")
def whoami(*, context: StepContext) -> dict[str, Any]:
    return {"key": context.idempotency_key, "attempt": context.attempt}


@step("picky", timeout=0.05)
def picky(how: str) -> None:
    if how == "slow":
        time.sleep(1)
    if how == "own":
        raise StepError("TooPicky", "no", retryable=False)
    raise LookupError("lost")


FUNCTIONS = (double, whoami, picky)


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions above, as if a package had brought them."""
    installed = {**step_types(), **{f.step_type().name: f.step_type() for f in FUNCTIONS}}  # type: ignore[attr-defined]
    monkeypatch.setattr(catalogue, "step_types", lambda: installed)


@pytest.fixture
def sums(bench: Bench, functions: None) -> Bench:
    """A worker of the queue `sums` beside the bench, which is one of the pool."""
    queue = catalogue.serve(bench.database, "sums")
    runner = bench.new_runner(queue="sums")
    with bench.database.cursor() as cursor:
        worker = workers.register(cursor, queue.pool, "test", 1, "0", 60.0)
    pump = bench.pump

    def both(rounds: int = 200) -> None:
        while True:
            pump(rounds)
            with bench.database.cursor() as cursor:
                jobs.due(cursor, queue.pool)
                claims = jobs.claim(cursor, queue.pool, worker, 10, 10, lease_seconds=60)
            for claim in claims:
                runner.run(claim.id, claim.attempt)
            if not claims:
                return

    bench.pump = both  # type: ignore[method-assign]
    return bench


def call(id_: str, type_: str, **config: Any) -> dict[str, Any]:
    return {"id": id_, "type": type_, "config": config}


def test_a_function_of_a_queue_is_run_by_its_workers_and_the_rest_by_the_pool(sums: Bench) -> None:
    rung: list[str | None] = []
    sums.runner = sums.new_runner(ring=rung.append)
    steps = [call("a", "double", n="${n}"), call("b", "set", variables={"m": "${n + 1}"}), call("c", "double", n="${m}", times=10)]  # fmt: skip
    done = sums.run(steps, {"n": 3}, flow="sequential")
    assert (done["status"], done["output"]) == ("completed", {"n": 70, "m": 7})
    assert rung == ["sums", "sums"]
    assert sums.query("select count(*) from job") == [(0,)]


@pytest.mark.parametrize("compensate", [False, True])
def test_without_a_worker_of_its_queue_a_step_waits_and_a_cancel_or_deadline_still_ends_the_run(
    bench: Bench, functions: None, compensate: bool
) -> None:
    id_ = bench.start(bench.define([call("a", "double", n=1)], timeout=60_000))
    bench.pump()
    assert bench.query("select pool >= 100, state from job") == [(True, "r")]
    with bench.database.cursor() as cursor:
        cursor.execute("update execution set deadline = now()")
        cursor.execute("select esb_reclaim()")
    bench.pump()
    assert bench.execution(id_)["status"] == "timed_out"
    other = bench.start(bench.define([call("a", "double", n=1)]))
    bench.pump()
    with bench.database.cursor() as cursor:
        cursor.execute("select esb_run_cancel(%s, 'enough', %s, '{}')", (other, compensate))
    bench.pump()
    assert bench.execution(other)["status"] == ("compensated" if compensate else "cancelled")
    assert bench.query("select count(*) from job") == [(0,)]


def test_a_strand_whose_worker_died_in_its_queue_stays_there(sums: Bench) -> None:
    id_ = sums.start(sums.define([call("a", "double", n=4)]))
    Bench.pump(sums)
    with sums.database.cursor() as cursor:
        queue = step_queues.named(cursor, "sums")
        assert queue is not None
        dead = workers.register(cursor, queue.pool, "test", 2, "0", 60.0)
        assert len(jobs.claim(cursor, queue.pool, dead, 1, 1, lease_seconds=60)) == 1
    sums.lose_leases()
    sums.settle()
    assert sums.execution(id_)["output"] == {"n": 8}


def test_parameters_are_checked_when_a_definition_is_saved_where_they_are_no_templates() -> None:
    kind = double.step_type()  # type: ignore[attr-defined]
    types = {**step_types(), "double": remote("double", kind.schema, "sums")}

    def faults(**config: Any) -> list[tuple[str, str]]:
        try:
            compile_definition({"steps": [call("a", "double", **config)]}, types)
        except Invalid as error:
            return [(fault.path, fault.message) for fault in error.errors]
        return []

    assert faults(n="${n}") == faults(n=1, times=3, resultPath="x") == []
    assert [path for path, _ in faults(n="one")] == ["definition.steps[0].config.n"]
    assert "required" in faults()[0][1]
    assert "additional" in faults(n=1, colour="red")[0][1]
    assert [path for path, _ in faults(n="${1 +}")] == ["definition.steps[0].config.n"]


def test_values_are_checked_when_the_step_runs(sums: Bench) -> None:
    done = sums.run([call("a", "double", n="${n}")], {"n": "many"})
    assert (done["status"], done["error"]["class"]) == ("failed", "ValidationError")


def test_a_function_may_know_its_attempt_and_its_key(bench: Bench, functions: None) -> None:
    done = bench.run([call("a", "whoami", resultPath="me")])
    assert done["output"] == {"me": {"key": f"{done['id']}:a", "attempt": 1}}


@pytest.mark.parametrize(
    ("how", "error", "attempts"), [("lost", "LookupError", 3), ("own", "TooPicky", 1), ("slow", "Timeout", 3)]
)
def test_what_a_function_raises_is_the_class_of_its_steps_error(
    bench: Bench, functions: None, how: str, error: str, attempts: int
) -> None:
    retry = {"retryPolicy": {"maxRetries": 2, "initialDelay": 1}}
    done = bench.run([{**call("a", "picky", how=how), **retry}])
    assert (done["error"]["class"], done["error"]["attempts"]) == (error, attempts)


def test_a_worker_of_a_queue_that_nothing_is_installed_for_does_not_start(database: Database) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        catalogue.serve(database, "nowhere")


def test_a_parameter_that_no_config_can_fill_is_refused_where_the_function_is_written() -> None:
    with pytest.raises(TypeError, match="rest"):

        @step("wrong")
        def wrong(*rest: int) -> None: ...


def test_a_package_with_steps_is_installed_in_one_worker_and_used_by_the_whole_bus(
    api: ApiClient, pool: Any, settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    source, site = shutil.copytree(PLUGIN, tmp_path / "source"), tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(source)]
    subprocess.run(install, check=True, capture_output=True)
    steps = [
        {"id": "count", "type": "count-words", "config": {"text": "${letter}", "most": 1}},
        {"id": "note", "type": "set", "config": {"variables": {"top": "${common[0]}"}}},
    ]
    draft = {"definition": {"flow": "sequential", "steps": steps}}
    assert api.post("/orchestration/workflows/validate", draft).json["valid"] is False  # nobody has announced it
    assert settings.database_url is not None
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path]),
        "ESB_DATABASE_URL": settings.database_url.get_secret_value(), "ESB_BROKER_URL": "redis://127.0.0.1:1/0",
        "ESB_SECRET_KEYS": ",".join(settings.secret_keys), "ESB_SWEEP_SECONDS": "0.2",
    }  # fmt: skip
    worker = subprocess.Popen(
        [sys.executable, "-m", "esb_workers", "worker", "orchestration", "--queue", "texts"],
        env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: api.post("/orchestration/workflows/validate", draft).json["valid"] is True, 30)
        done = ended(api, execute(api, define(api, draft["definition"]), {"letter": "so so far"}), eventually, 20)
        assert (done["status"], done["output"]) == (
            "completed",
            {"letter": "so so far", "words": 3, "common": ["so"], "top": "so"},
        )
        shown = {item["pool"]: item["workers"] for item in api.get("/system/queues").json["items"]}
        assert shown["steps.texts"] == 1
        assert "count-words" in api.get("/orchestration/workflows/schema").text
    finally:
        worker.terminate()
        worker.wait(15)
