"""Acts on many runs: by filter, durable, each run told once."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from esb_workers.store.engine import Database
from esb_workers.upkeep import bulk
from tests.support.api import ApiClient
from tests.support.workflows import Bench, service

SLEEP = {"id": "w", "type": "wait", "config": {"duration": 3_600_000}}
PATH = "/orchestration/executions/bulk"


def statuses(bench: Bench) -> dict[str, int]:
    return dict(bench.query("select status, count(*) from execution group by 1"))


def test_a_dry_run_counts_and_shows_and_does_nothing(api: ApiClient, bench: Bench) -> None:
    workflow = bench.define([SLEEP])
    ids = [bench.start(workflow) for _ in range(12)]
    bench.start(bench.define([SLEEP]))
    answer = api.post(PATH, {"action": "cancel", "filter": {"workflowId": workflow}, "dryRun": True})
    assert (answer.status_code, answer.json["matched"]) == (200, 12)
    assert [run["id"] for run in answer.json["sample"]] == ids[:1:-1]
    assert statuses(bench) == {"open": 13}


def test_runs_are_cancelled_paused_and_resumed_by_filter(api: ApiClient, bench: Bench) -> None:
    workflow = bench.define([SLEEP], name="many")
    for i in range(130):
        bench.start(workflow, correlation=f"c{i % 2}")
    bench.pump()
    for action, filters, after in (
        ("pause", {"correlationId": "c0"}, {"open": 65, "paused": 65}),
        ("resume", {"workflowName": "many", "status": "paused"}, {"open": 130}),
        ("cancel", {"status": ["waiting", "running", "pending"]}, {"cancelled": 130}),
    ):
        started = api.post(PATH, {"action": action, "filter": filters})
        assert started.status_code == 202, started.json
        while bulk.tick(bench.database):
            pass
        assert statuses(bench) == after
        shown = api.get(started.headers["Location"]).json
        assert (shown["status"], shown["done"], shown["refused"]) == ("completed", started.json["matched"], 0)
        assert shown["id"] == started.json["bulkId"] and shown["filter"] == filters
    assert bench.query("select count(*) from audit where action = 'cancel' and resource = 'execution'") == [(130,)]


def test_failed_runs_are_retried_and_others_left_alone(api: ApiClient, bench: Bench) -> None:
    well = False
    bench.services.on_call = lambda request: None if well else failing()
    workflow = bench.define([service("a")])
    ids = [bench.start(workflow) for _ in range(3)]
    bench.settle()
    other = bench.start(bench.define([SLEEP]))
    well = True
    started = api.post(PATH, {"action": "retry", "filter": {"ids": [*ids, other]}})
    assert started.json["matched"] == 3
    bench.settle()
    assert statuses(bench) == {"completed": 3, "open": 1}
    assert api.get(started.headers["Location"]).json["done"] == 3


def failing() -> Any:
    from tests.support.workflows import down

    return down(400, retryable=False)


def test_a_run_that_has_ended_meanwhile_is_counted_as_refused(api: ApiClient, bench: Bench) -> None:
    workflow = bench.define([SLEEP])
    ids = [bench.start(workflow) for _ in range(bulk.CHUNK + 5)]
    started = api.post(PATH, {"action": "pause", "filter": {"workflowId": workflow}})
    assert api.get(started.headers["Location"]).json["status"] == "running"
    assert api.post(f"/orchestration/executions/{ids[-1]}/cancel").status_code == 200
    bulk.tick(bench.database)
    shown = api.get(started.headers["Location"]).json
    assert (shown["status"], shown["done"], shown["refused"]) == ("completed", bulk.CHUNK + 4, 1)


def test_what_was_answered_202_is_carried_out_by_whoever_is_left(api: ApiClient, bench: Bench) -> None:
    workflow = bench.define([SLEEP])
    for _ in range(170):
        bench.start(workflow)
    started = api.post(PATH, {"action": "cancel", "filter": {"workflowId": workflow}})
    assert statuses(bench)["open"] > 0  # the process that took the request did one chunk, and died
    others = [
        Database(bench.database.engine.url.render_as_string(hide_password=False), pool_size=2, name="s")
        for _ in range(3)
    ]
    threads = [threading.Thread(target=bulk.tick, args=(database,)) for database in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    while bulk.tick(bench.database):
        pass
    for database in others:
        database.dispose()
    assert statuses(bench) == {"cancelled": 170}
    shown = api.get(started.headers["Location"]).json
    assert (shown["status"], shown["done"]) == ("completed", 170)
    assert bench.query("select count(*) from event where type = 'run.cancelled'") == [(170,)]


def test_the_rest_can_be_left_undone(api: ApiClient, bench: Bench) -> None:
    workflow = bench.define([SLEEP])
    for _ in range(bulk.CHUNK + 5):
        bench.start(workflow)
    at = api.post(PATH, {"action": "pause", "filter": {"workflowId": workflow}}).headers["Location"]
    assert api.post(f"{at}/cancel").json["status"] == "cancelled"
    assert bulk.tick(bench.database) == 0
    assert statuses(bench) == {"paused": bulk.CHUNK, "open": 5}
    assert api.post(f"{at}/cancel").json["code"] == "illegal_transition"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"action": "cancel", "filter": {}}, "filter"),
        ({"action": "cancel"}, "filter"),
        ({"action": "rerun", "filter": {"status": "failed"}}, "action"),
        ({"action": "pause", "filter": {"status": "bogus"}}, "filter.status"),
        ({"action": "pause", "filter": {"ids": []}}, "filter.ids"),
        ({"action": "pause", "filter": {"bogus": 1}}, "filter.bogus"),
        ({"action": "pause", "filter": {"status": "waiting"}, "compensate": True}, ""),
    ],
)
def test_what_is_wrong_with_it_is_named(api: ApiClient, body: Any, path: str) -> None:
    refused = api.post(PATH, body)
    assert refused.status_code == 422
    assert refused.json["errors"][0]["path"].startswith(path)


def test_ids_that_are_none_take_nothing(api: ApiClient, bench: Bench) -> None:
    bench.start(bench.define([SLEEP]))
    started = api.post(PATH, {"action": "cancel", "filter": {"workflowId": "no id"}})
    assert (started.status_code, started.json["matched"]) == (202, 0)
    assert api.get(started.headers["Location"]).json["status"] == "completed"
    assert statuses(bench) == {"open": 1}
