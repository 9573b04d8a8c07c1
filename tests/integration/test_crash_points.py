"""What a process leaves behind that kills itself at each crash point, to the row, and how the others mend it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from esb_workers import drill
from esb_workers.settings import Settings
from esb_workers.store import jobs
from esb_workers.store.engine import Database
from tests.support.api import ApiClient
from tests.support.engines import Engines
from tests.support.receiver import Receiver

Eventually = Callable[..., None]

#: A process that does one thing, armed. It dies by its crash point, or fails the test by ending in another way.
_PROCESS = """
import json, sys
from esb_workers import drill
from esb_workers.app import make_celery
from esb_workers.bus import Bus, NewMessage
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store.engine import Database

role, label, url, key = sys.argv[1:]
settings = Settings.load({}, None, database_url=url, secret_keys=(key,), sweep_seconds=0.2, lease_seconds=5)
database = Database(url, pool_size=4)
ringer = Ringer(make_celery(settings))
drill.arm(label)
if role == "sender":
    Bus(database, ringer).publish([NewMessage("shop", "a", "c", "{}", '{"n": 1}', ordering_key="k")], None)
else:
    from esb_workers.worker import make_engine
    import threading
    make_engine(settings, role, database, ringer, 4).start()
    threading.Event().wait(30)
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


class Scene:
    """A bus on one database, whose processes can be made to die at a label."""

    def __init__(self, api: ApiClient, settings: Settings, database: Database, receiver: Receiver) -> None:
        self.api, self.settings, self.database = api, settings, database
        service = {"name": "crm", "version": "1.0.0", "endpoint": receiver.url}
        assert api.post("/services", service).status_code == 201
        assert api.post("/routing/routes", {"name": "r", "pattern": "#", "destinations": ["crm"]}).status_code == 201

    def dies(self, role: str, label: str) -> None:
        command = [sys.executable, "-c", _PROCESS, role, label, self.database.url, self.settings.secret_keys[0]]
        ended = subprocess.run(command, timeout=60, env=os.environ, check=False)
        assert ended.returncode == 9, "it died at the label, not before or after"

    def send(self) -> None:
        body = {"source": "shop", "messageType": "a", "payload": {"n": 1}, "orderingKey": "k"}
        assert self.api.post("/routing/send", body).status_code == 202

    def rows(self, query: str) -> list[Any]:
        with self.database.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def jobs(self) -> list[tuple[int, str, int, bool]]:
        """Unfinished rows: pool, state, fence, whether a worker holds it."""
        return self.rows("select pool, state::text, attempt, worker_id is not null from job order by pool")

    def attempts(self) -> list[str]:
        (message,) = self.api.get("/routing/logs").json["items"]
        (delivery,) = message["deliveries"]
        return [attempt["outcome"] for attempt in delivery["attempts"]]

    def bury(self) -> None:
        """The lease of whoever died runs out."""
        self.rows("update worker set beat_until = now() - interval '1 s' where dead_at is null returning 1")
        with self.database.cursor() as cursor:
            cursor.execute("select * from esb_sweep(100, interval '0')")

    def mends_itself(self, receiver: Receiver, eventually: Eventually) -> None:
        """Others take over, and the message arrives once in effect."""
        with Engines(self.settings, self.database):
            eventually(lambda: self.api.get("/routing/logs?status=delivered").json["items"], seconds=20)
        assert [hit.json for hit in receiver.hits][-1] == {"n": 1}
        assert len(receiver.effects()) == 1
        assert self.jobs() == []


@pytest.fixture
def scene(api: ApiClient, settings: Settings, database: Database, receiver: Receiver) -> Scene:
    return Scene(api, settings, database, receiver)


def test_after_the_insert_the_message_is_stored_and_its_key_not_promoted(
    scene: Scene, receiver: Receiver, eventually: Eventually
) -> None:
    scene.dies("sender", drill.AFTER_INSERT)
    assert scene.rows("select payload from message") == [('{"n": 1}',)]
    assert scene.jobs() == [(1, "q", 0, False)]
    scene.mends_itself(receiver, eventually)


def test_after_the_commit_nobody_has_rung_and_the_poll_finds_it(
    scene: Scene, receiver: Receiver, eventually: Eventually
) -> None:
    scene.dies("sender", drill.AFTER_COMMIT_BEFORE_RING)
    assert scene.jobs() == [(1, "q", 0, False)]
    scene.mends_itself(receiver, eventually)


def test_after_a_claim_the_row_is_in_flight_under_a_fence_and_nothing_was_sent(
    scene: Scene, receiver: Receiver, eventually: Eventually
) -> None:
    scene.send()
    scene.dies("routing", drill.AFTER_CLAIM)
    assert scene.jobs() == [(1, "f", 1, True)]
    scene.bury()
    assert scene.jobs() == [(1, "r", 1, True)]
    scene.mends_itself(receiver, eventually)
    assert scene.attempts() == ["ok"]


def test_in_the_midst_of_a_batch_nothing_of_it_is_routed(
    scene: Scene, receiver: Receiver, eventually: Eventually
) -> None:
    scene.send()
    scene.dies("routing", drill.MID_BATCH)
    assert scene.jobs() == [(1, "f", 1, True)]
    assert scene.rows("select 1 from delivery") == []
    scene.bury()
    scene.mends_itself(receiver, eventually)


def test_after_routing_was_recorded_the_delivery_stands_and_nobody_has_rung(
    scene: Scene, receiver: Receiver, eventually: Eventually
) -> None:
    scene.send()
    scene.dies("routing", drill.AFTER_COMMIT_BEFORE_RING)
    assert scene.jobs() == [(2, "q", 0, False)]
    scene.bury()
    scene.mends_itself(receiver, eventually)


def routed(scene: Scene) -> None:
    scene.send()
    scene.dies("routing", drill.AFTER_COMMIT_BEFORE_RING)
    with scene.database.cursor() as cursor:
        assert jobs.promote_all(cursor) == 1


def test_after_the_claim_of_a_delivery_the_attempt_is_on_record_before_any_call(
    scene: Scene, receiver: Receiver, eventually: Eventually
) -> None:
    routed(scene)
    scene.dies("delivery", drill.AFTER_CLAIM)
    assert scene.jobs() == [(2, "f", 1, True)]
    assert receiver.hits == []
    scene.bury()
    assert scene.rows("select number, outcome from attempt") == [(1, "unknown")]
    scene.mends_itself(receiver, eventually)
    assert scene.attempts() == ["unknown", "ok"]


def test_after_a_call_its_outcome_is_unknown_and_it_is_made_again_under_the_same_id(
    scene: Scene, receiver: Receiver, eventually: Eventually
) -> None:
    routed(scene)
    scene.dies("delivery", drill.AFTER_CALL_BEFORE_RECORD)
    assert scene.jobs() == [(2, "f", 1, True)]
    assert len(receiver.hits) == 1
    scene.bury()
    scene.mends_itself(receiver, eventually)
    assert scene.attempts() == ["unknown", "ok"]
    assert len(receiver.hits) == 2


def test_every_crash_point_is_among_these() -> None:
    assert set(drill.LABELS) == {
        drill.AFTER_INSERT, drill.AFTER_COMMIT_BEFORE_RING, drill.AFTER_CLAIM, drill.AFTER_CALL_BEFORE_RECORD,
        drill.MID_BATCH,
    }  # fmt: skip
