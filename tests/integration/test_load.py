"""Beyond what the bus can bear, new work is refused at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from esb_api import load
from esb_api.app import create_app
from esb_api.load import Load
from esb_api.metrics import Metrics
from esb_workers.errors import Overloaded
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from tests.support.api import OPERATOR_KEY, ApiClient

BODY = {"source": "shop", "messageType": "a", "payload": 1}


def test_beyond_the_backlog_sends_and_starts_are_answered_503_until_it_has_come_down(
    settings: Settings, database: Database, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "EVERY", 0.05)
    app = create_app(settings.model_copy(update={"max_backlog": 5}))
    api = ApiClient(app, OPERATOR_KEY)
    batch = {"messages": [BODY] * 6}
    assert api.post("/routing/send/batch", batch).status_code == 202
    eventually(lambda: api.post("/routing/send", BODY).status_code == 503)
    refused = api.post("/routing/send", BODY)
    assert (refused.json["code"], refused.headers["Retry-After"]) == ("overloaded", "5")
    assert api.post("/orchestration/execute", {"workflowName": "w"}).status_code == 503
    assert api.get("/routing/logs").status_code == 200, "what is no new work is answered"
    assert 'esb_shed_total{reason="backlog"}' in api.get("/metrics").text
    with database.cursor() as cursor:
        cursor.execute("delete from job")
    eventually(lambda: api.post("/routing/send", BODY).status_code == 202)
    api.context.close()


def test_what_is_held_is_no_backlog(api: ApiClient, database: Database) -> None:
    from esb_workers.store import figures

    api.post("/routing/send/batch", {"messages": [BODY] * 6})
    with database.cursor() as cursor:
        cursor.execute("analyze job")
        assert figures.backlog_exceeds(cursor, 5)
        assert not figures.backlog_exceeds(cursor, 6)
        cursor.execute("update lane set gate_until = 'infinity'")
        assert not figures.backlog_exceeds(cursor, 5)


def test_while_an_accept_hangs_others_are_not_begun(database: Database) -> None:
    bearable = Load(database, Metrics(), 0, 100)
    begun, end = threading.Event(), threading.Event()

    def hang() -> None:
        with bearable.place():
            begun.set()
            end.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    assert begun.wait(10)
    with bearable.place():
        pass
    deadline = time.monotonic() + 10
    with pytest.raises(Overloaded) as refused:
        while time.monotonic() < deadline:
            with bearable.place():
                pass
    assert refused.value.retry_after == load.DATABASE_PAUSE
    end.set()
    thread.join()
    with bearable.place():
        pass
