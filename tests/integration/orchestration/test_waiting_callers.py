"""`Prefer: wait` on a start: the worker hears that somebody waits, and the caller that the run has ended."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from esb_workers.app import make_celery
from esb_workers.orchestration.tasks import StrandEngine, make_engine
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store import notices, runs
from esb_workers.store.engine import Cursor, Database
from esb_workers.store.notices import Listener
from tests.support.api import ApiClient

Eventually = Callable[..., None]
executions = importlib.import_module("esb_api.resources.executions")
DEFINITION = {"steps": [{"id": "s", "type": "succeed", "config": {"output": {"x": 1}}}]}


@pytest.fixture
def deaf_pool(settings: Settings, database: Database, eventually: Eventually) -> Iterator[StrandEngine]:
    """Hears no bell, and hardly looks by itself."""
    settings = settings.model_copy(update={"sweep_seconds": 120.0})
    ringer = Ringer(make_celery(settings))
    engine = make_engine(settings, database, ringer, slots=4)
    engine.start()
    eventually(lambda: listeners(database) == 1, seconds=20)
    yield engine
    engine.stop(5)
    ringer.close()


def listeners(database: Database) -> int:
    with database.cursor() as cursor:
        cursor.execute(
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and application_name = 'esb listener' and query like 'listen %' and state = 'idle'"
        )
        return int(cursor.fetchone()[0])  # type: ignore[index]


def rung(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bells that are rung from now on."""
    rings: list[str] = []
    monkeypatch.setattr(api.context.orchestration._ringer, "ring", rings.append)
    return rings


def execute(api: ApiClient, **headers: str) -> Any:
    return api.post("/orchestration/execute", {"workflowName": "w"}, **headers)


def test_a_run_that_somebody_waits_for_needs_no_bell_and_its_end_no_looking(
    api: ApiClient, deaf_pool: StrandEngine, database: Database, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = {"name": "w", "version": "1.0.0", "definition": DEFINITION}
    assert api.post("/orchestration/workflows", workflow).status_code == 201
    assert execute(api, Prefer="wait=0").status_code in (200, 202)  # both listen from now on
    api.context.endings._listener.ensure()
    eventually(lambda: listeners(database) == 2)
    looks = []

    def counted(cursor: Cursor, execution_id: str) -> str | None:
        looks.append(execution_id)
        return runs_status(cursor, execution_id)

    runs_status = runs.status
    monkeypatch.setattr(executions.runs, "status", counted)
    rings = rung(api, monkeypatch)
    monkeypatch.setattr(executions, "_FIRST_LOOK", 120.0)
    monkeypatch.setattr(executions, "_LONGEST_PAUSE", 120.0)
    done = execute(api, Prefer="wait=20")
    assert (done.status_code, done.json["output"]) == (200, {"x": 1})
    assert looks == [done.json["id"]], "one look, when it was told"
    assert rings == []


def test_a_bell_is_rung_for_a_run_that_has_not_ended_at_the_first_look(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = {"name": "w", "version": "1.0.0", "definition": DEFINITION}
    assert api.post("/orchestration/workflows", workflow).status_code == 201
    rings = rung(api, monkeypatch)
    assert execute(api, Prefer="wait=1").status_code == 202, "there is no worker"
    assert rings == ["orchestration"]
    assert execute(api).status_code == 202
    assert execute(api, Prefer="wait=0").status_code == 202
    with monkeypatch.context() as full:
        full.setattr(api.context.waiting, "_places", None)  # as with all of them taken
        assert execute(api, Prefer="wait=1").status_code == 202
    assert rings == ["orchestration"] * 4


def test_a_caller_that_nobody_tells_looks_by_itself(
    api: ApiClient, deaf_pool: StrandEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under load, or with nobody listening any more."""
    workflow = {"name": "w", "version": "1.0.0", "definition": DEFINITION}
    assert api.post("/orchestration/workflows", workflow).status_code == 201
    monkeypatch.setattr(deaf_pool, "_loaded", lambda: True)
    done = execute(api, Prefer="wait=20")
    assert (done.status_code, done.json["output"]) == (200, {"x": 1})


def test_many_callers_are_each_told_of_their_own_run(api: ApiClient, deaf_pool: StrandEngine) -> None:
    workflow = {"name": "w", "version": "1.0.0", "definition": DEFINITION}
    assert api.post("/orchestration/workflows", workflow).status_code == 201
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(execute(api.with_key(api._key), Prefer="wait=20")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [answer.json["status"] for answer in answers if answer.status_code == 200].count("completed") >= 1
    assert len({answer.json["executionId"] for answer in answers}) == 4
    assert api.context.endings._waiting == {}


def test_a_listener_that_has_lost_its_connection_listens_again(database: Database, eventually: Eventually) -> None:
    heard: list[str] = []
    listener = Listener(database, "esb_ended", heard.append)
    listener.ensure()

    def told(text: str) -> bool:
        with database.cursor() as cursor:
            notices.tell(cursor, "esb_ended", text)
        return text in heard

    try:
        eventually(lambda: told("first"), seconds=10)
        with database.cursor() as cursor:
            cursor.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name = 'esb listener'"
            )
        eventually(lambda: told("second"), seconds=10)
    finally:
        listener.close()
    eventually(lambda: listeners(database) == 0, seconds=10)
