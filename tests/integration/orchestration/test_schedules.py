"""Schedules: kept, fired once for each due time by however many look, whatever dies."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from esb_workers import drill
from esb_workers.orchestration import calendar
from esb_workers.orchestration.schedules import Schedules
from esb_workers.orchestration.start import Orchestration
from tests.support.api import ApiClient
from tests.support.workflows import Bench, Silent

SLEEP = {"id": "w", "type": "wait", "config": {"duration": 3_600_000}}
QUICK = {"id": "q", "type": "set", "config": {"variables": {"done": True}}}


@pytest.fixture
def schedules(bench: Bench) -> Schedules:
    return another(bench)


def another(bench: Bench) -> Schedules:
    """What one process fires schedules with."""
    return Schedules(bench.database, Orchestration(bench.database, Silent()))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _minutes_may_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Due times lie on minutes: at the end of one, what has just come due would be missed a moment later."""
    monkeypatch.setattr(calendar, "GRACE", timedelta(minutes=5))


def make(api: ApiClient, steps: list[Any] | None = None, **over: Any) -> Any:
    """A schedule of a workflow of its own, hourly."""
    name = f"w{datetime.now(UTC).timestamp()}".replace(".", "-")
    definition = {"steps": steps or [SLEEP]}
    api.post("/orchestration/workflows", {"name": name, "version": "1.0.0", "definition": definition})
    body = {"name": f"s-{name}", "workflowName": name, "cron": "0 * * * *", **over}
    made = api.post("/orchestration/schedules", body)
    assert made.status_code == 201, made.json
    return made.json


def come_due(bench: Bench, hours: int = 0) -> datetime:
    """Time passes: the schedules' next due time was the full hour, that many hours ago."""
    due = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours)
    bench.query("update schedule set next_at = %s returning 1", due)
    # As cron is read at any minute of the hour, the due times lie on this very minute.
    minute = (datetime.now(UTC) - timedelta(seconds=1)).minute
    bench.query(
        "update schedule set cron = %s, next_at = %s returning 1", f"{minute} * * * *", due.replace(minute=minute)
    )
    return due.replace(minute=minute)


def runs_of(bench: Bench, schedule_id: str) -> list[tuple[str, datetime]]:
    return bench.query(
        "select status, scheduled_for from execution where schedule_id = %s order by scheduled_for, id", schedule_id
    )


# --- for people ------------------------------------------------------------------------------------------


def test_a_schedule_is_made_read_changed_and_deleted(api: ApiClient) -> None:
    made = make(api, cron="30 8 * * MON-FRI", timezone="Europe/Berlin", initialContext={"a": 1}, jitter=500)
    path = f"/orchestration/schedules/{made['id']}"
    assert (made["catchUp"], made["overlap"], made["enabled"], len(made["nextRuns"])) == ("none", "skip", True, 5)
    assert api.get(path).json == made
    assert [item["id"] for item in api.get(f"/orchestration/schedules?name={made['name']}").json["items"]] == [
        made["id"]
    ]
    tag = api.get(path).headers["ETag"]
    off = api.patch(path, {"enabled": False, "timezone": None, "initialContext": {"b": 2}}, If_Match=tag)
    assert (off.status_code, off.json["nextRuns"], off.json["timezone"]) == (200, [], "UTC")
    assert off.json["initialContext"] == {"a": 1, "b": 2}
    assert api.patch(path, {"jitter": 1}, If_Match=tag).status_code == 412
    assert api.get("/orchestration/schedules?enabled=true").json["items"] == []
    assert api.delete(path).status_code == 204 and api.get(path).status_code == 404
    actions = [c["action"] for c in api.get("/system/audit?resource=schedule").json["items"]]
    assert actions == ["delete", "update", "create"]


@pytest.mark.parametrize(
    ("over", "path"),
    [
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"catchUp": "some"}, "catchUp"),
        ({"overlap": "maybe"}, "overlap"),
        ({"jitter": -1}, "jitter"),
        ({"startAt": "soon"}, "startAt"),
        ({"bogus": 1}, "bogus"),
        ({"workflowId": "x"}, ""),
        ({"startAt": "2027-01-01T00:00:00Z", "endAt": "2026-01-01T00:00:00Z"}, ""),
    ],
)
def test_what_is_wrong_with_a_schedule_is_named(api: ApiClient, over: dict[str, Any], path: str) -> None:
    body = {"name": "s", "workflowName": "w", "cron": "0 * * * *", **over}
    refused = api.post("/orchestration/schedules", body)
    assert (refused.status_code, refused.json["errors"][0]["path"]) == (422, path)


def test_its_workflow_must_exist_and_take_its_context_and_its_name_is_its_own(api: ApiClient) -> None:
    made = make(api)
    again = {"name": made["name"].upper(), "workflowName": made["workflowName"], "cron": "0 * * * *"}
    assert api.post("/orchestration/schedules", again).json["code"] == "name_taken"
    assert api.post("/orchestration/schedules", again | {"workflowName": "nobody"}).json["code"] == "workflow_not_found"
    schema = {"type": "object", "required": ["x"]}
    api.post(
        "/orchestration/workflows",
        {"name": "strict", "version": "1.0.0", "definition": {"steps": [SLEEP], "inputSchema": schema}},
    )
    assert api.post("/orchestration/schedules", again | {"name": "z", "workflowName": "strict"}).status_code == 422


# --- when they are due -----------------------------------------------------------------------------------


def test_a_due_time_starts_one_run_however_many_look(api: ApiClient, bench: Bench) -> None:
    made = make(api, initialContext={"x": 1})
    due = come_due(bench)
    threads = [threading.Thread(target=another(bench).tick) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert runs_of(bench, made["id"]) == [("open", due)]
    shown = api.get(f"/orchestration/schedules/{made['id']}").json
    assert shown["lastOutcome"] == "started"
    run = api.get(f"/orchestration/executions/{shown['lastExecutionId']}").json
    assert (run["scheduleId"], run["initialContext"], run["status"]) == (made["id"], {"x": 1}, "pending")


@pytest.mark.parametrize("label", [drill.AFTER_CLAIM, drill.AFTER_INSERT, drill.AFTER_COMMIT_BEFORE_RING])
def test_a_death_between_claim_and_start_neither_loses_nor_doubles_a_run(
    api: ApiClient, bench: Bench, schedules: Schedules, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    made = make(api)
    due = come_due(bench)

    def die(reached: str) -> None:
        if reached == label:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(drill, "crash_point", die)
        schedules.tick()
    for _ in range(3):
        another(bench).tick()
    assert runs_of(bench, made["id"]) == [("open", due)]


@pytest.mark.parametrize(("catch_up", "count"), [("none", 1), ("last", 1), ("all", 4)])
def test_missed_due_times_are_caught_up_as_it_says(
    api: ApiClient, bench: Bench, schedules: Schedules, catch_up: str, count: int
) -> None:
    made = make(api, catchUp=catch_up, overlap="allow")
    come_due(bench, hours=3)
    schedules.tick()
    assert len(runs_of(bench, made["id"])) == count
    assert schedules.tick() == 0


def test_an_overlap_is_skipped(api: ApiClient, bench: Bench, schedules: Schedules) -> None:
    made = make(api, catchUp="all")
    come_due(bench, hours=2)
    schedules.tick()
    assert len(runs_of(bench, made["id"])) == 1
    assert api.get(f"/orchestration/schedules/{made['id']}").json["lastOutcome"].startswith("skipped")


def test_an_overlap_cancels_the_run_before(api: ApiClient, bench: Bench, schedules: Schedules) -> None:
    made = make(api, catchUp="all", overlap="cancel_previous")
    come_due(bench, hours=2)
    schedules.tick()
    assert [status for status, _ in runs_of(bench, made["id"])] == ["cancelled", "cancelled", "open"]


def test_an_overlap_waits_for_its_turn(api: ApiClient, bench: Bench, schedules: Schedules) -> None:
    made = make(api, [QUICK], catchUp="all", overlap="queue")
    come_due(bench, hours=2)
    schedules.tick()
    assert [status for status, _ in runs_of(bench, made["id"])] == ["open"]
    assert api.get(f"/orchestration/schedules/{made['id']}").json["queuedRuns"] == 2
    for _ in range(3):
        bench.settle()
        schedules.tick()
    assert [status for status, _ in runs_of(bench, made["id"])] == ["completed"] * 3


def test_a_schedule_that_cannot_start_its_run_says_why_and_goes_on(
    api: ApiClient, bench: Bench, schedules: Schedules
) -> None:
    made = make(api)
    bench.query("update workflow set deleted_at = now() returning 1")
    come_due(bench)
    assert schedules.tick() == 0
    shown = api.get(f"/orchestration/schedules/{made['id']}").json
    assert shown["lastOutcome"] == "refused: there is no such workflow" and shown["lastExecutionId"] is None
    assert len(shown["nextRuns"]) == 5 and bench.query("select next_at > now() from schedule") == [(True,)]


def test_one_that_is_broken_does_not_hold_up_the_others(api: ApiClient, bench: Bench, schedules: Schedules) -> None:
    broken, good = make(api), make(api)
    come_due(bench)
    bench.query("update schedule set cron = 'nonsense' where id = %s returning 1", broken["id"])
    schedules.tick()
    assert len(runs_of(bench, good["id"])) == 1 and runs_of(bench, broken["id"]) == []


def test_what_is_disabled_or_over_starts_nothing(api: ApiClient, bench: Bench, schedules: Schedules) -> None:
    make(api, enabled=False)
    make(api, endAt="2020-01-01T00:00:00Z")
    assert bench.query("select count(*) from schedule where next_at is null") == [(1,)]
    bench.query("update schedule set next_at = now() where next_at is not null returning 1")
    assert schedules.tick() == 0


def test_jitter_delays_the_run_and_not_its_due_time(api: ApiClient, bench: Bench, schedules: Schedules) -> None:
    made = make(api, jitter=86_400_000)
    due = come_due(bench)
    schedules.tick()
    assert runs_of(bench, made["id"]) == [("open", due)]
    assert bench.query("select state, run_at > now() from job") == [("s", True)]
    run = api.get("/orchestration/executions").json["items"][0]
    assert run["status"] == "pending"


def test_a_schedule_whose_run_is_under_way_keeps_its_due_times_while_the_workers_sleep(
    api: ApiClient, bench: Bench, eventually: Callable[..., None], settings: Any
) -> None:
    from esb_workers.app import make_celery
    from esb_workers.orchestration.tasks import make_engine
    from esb_workers.runtime.ringer import Ringer

    ringer = Ringer(make_celery(settings))
    engine = make_engine(settings.model_copy(update={"sweep_seconds": 60.0}), bench.database, ringer, slots=2)
    made = make(api, [SLEEP], cron="* * * * * *", overlap="skip")
    seen: set[datetime] = set()
    engine.start()
    try:
        eventually(lambda: seen.update(*bench.query("select next_at from schedule")) or len(seen) >= 5, 20)  # type: ignore[func-returns-value]
    finally:
        engine.stop(5)
        ringer.close()
    assert len(runs_of(bench, made["id"])) == 1


def test_a_schedule_fires_by_itself_to_the_second(
    api: ApiClient, bench: Bench, eventually: Callable[..., None], settings: Any
) -> None:
    from esb_workers.app import make_celery
    from esb_workers.orchestration.tasks import make_engine
    from esb_workers.runtime.ringer import Ringer

    ringer = Ringer(make_celery(settings))
    engine = make_engine(settings.model_copy(update={"sweep_seconds": 5.0}), bench.database, ringer, slots=2)
    made = make(api, [QUICK], cron="* * * * * *", overlap="allow")
    engine.start()
    try:
        eventually(lambda: sum(status == "completed" for status, _ in runs_of(bench, made["id"])) >= 3, 15)
    finally:
        engine.stop(5)
        ringer.close()
    late = bench.query("select max(extract(epoch from created_at - scheduled_for))::float8 from execution")[0][0]
    dues = [due for _, due in runs_of(bench, made["id"])]
    assert late < 5 and len(dues) == len(set(dues))
