"""Routing: what was accepted becomes deliveries, by the routes in force."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from esb_workers.app import make_celery
from esb_workers.bus import Bus, NewMessage
from esb_workers.routing.book import Book
from esb_workers.routing.routes import Routes
from esb_workers.routing.tasks import Routing, make_engine
from esb_workers.runtime.engine import Engine
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store import jobs, revision, routes, workers
from esb_workers.store.engine import Database, StaleRevision


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    settings = Settings.load({}, None, broker_url="redis://127.0.0.1:1/0", sweep_seconds=0.3)
    ringer = Ringer(make_celery(settings))
    running = make_engine(settings, database, ringer)
    running.start()
    yield running
    running.stop(5)
    ringer.close()


@pytest.fixture
def bus(engine: Engine, database: Database) -> Bus:
    return Bus(database, engine.ringer)


def add_route(database: Database, name: str, priority: int = 0, **body: Any) -> str:
    with database.transaction() as connection:
        made = routes.add(connection, name, priority, True, body)
        connection.exec_driver_sql("select esb_changed('routes')")
    return made.id


def send(bus: Bus, message_type: str = "order.made", payload: str = '{"n": 1}', **fields: Any) -> str:
    new = NewMessage("shop", message_type, "corr-1", fields.pop("headers", "{}"), payload, **fields)
    (outcome,) = bus.publish([new], None)
    return outcome.id


def rows(database: Database, query: str, *arguments: Any) -> list[Any]:
    with database.cursor() as cursor:
        cursor.execute(query, arguments)
        return cursor.fetchall()


def deliveries(database: Database, message: str) -> list[tuple[str, str]]:
    query = "select l.name, j.state from job j join lane l on l.id = j.lane_id where j.pool = 2 and j.message_id = %s order by j.seq"
    return rows(database, query, message)


def ended(database: Database, message: str) -> list[tuple[str]]:
    return rows(database, "select status from message_end where message_id = %s", message)


Eventually = Callable[..., None]


def test_a_message_becomes_a_delivery_for_each_destination_of_each_route_that_takes_it(
    database: Database, bus: Bus, eventually: Eventually
) -> None:
    add_route(database, "low", pattern="order.*", destinations=["billing"])
    add_route(database, "high", priority=9, pattern="order.#", destinations=["audit", "stock@^1.2"])
    add_route(database, "other", pattern="user.*", destinations=["mail"])
    message = send(bus)
    eventually(lambda: deliveries(database, message) == [("audit", "r"), ("stock", "r"), ("billing", "r")])


def test_large_messages_of_one_claim_are_recorded_in_portions_and_small_ones_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_route(database, "all", pattern="#", destinations=["billing"])
    portions: list[int] = []
    record = jobs.routed

    def counted(cursor: Any, worker: int, results: Any) -> jobs.Done:
        portions.append(len(results))
        return record(cursor, worker, results)

    monkeypatch.setattr(jobs, "routed", counted)
    ringer = Ringer(make_celery(Settings.load({}, None, broker_url="redis://127.0.0.1:1/0")))
    bus, routing = Bus(database, ringer), Routing(database, ringer, "")
    with database.cursor() as cursor:
        worker = workers.register(cursor, 1, "here", 1, "1", 60)
    for letters, expected in ((10, [250]), (50_000, [100, 100, 50])):
        new = [NewMessage("shop", "order.made", "c", "{}", f'"{"x" * letters}"') for _ in range(250)]
        bus.publish(new, None)
        with database.cursor() as cursor:
            claims = jobs.claim(cursor, 1, worker, 500, 500)
        portions.clear()
        assert set(routing.handle(worker, claims).ids) == {claim.id for claim in claims}
        assert portions == expected
    bus.close()


def test_a_message_that_no_route_takes_is_unroutable_and_says_so(
    database: Database, bus: Bus, eventually: Eventually
) -> None:
    message = send(bus)
    eventually(lambda: ended(database, message) == [("unroutable",)])


def test_a_route_governs_every_message_accepted_after_its_answer(
    database: Database, bus: Bus, eventually: Eventually
) -> None:
    for n in range(10):
        name = f"d{n}"
        add_route(database, name, pattern=f"t{n}", destinations=[name])
        message = send(bus, f"t{n}")
        eventually(lambda m=message, d=name: deliveries(database, m) == [(d, "r")])


def test_nothing_is_accepted_on_knowledge_that_is_out_of_date(database: Database, bus: Bus) -> None:
    with bus.database.cursor() as cursor:
        known = revision.by_topic(cursor)
    add_route(database, "new", pattern="#", destinations=["d"])
    with pytest.raises(StaleRevision):
        bus.publish([NewMessage("shop", "order.made", "c", "{}", "1")], known)
    assert rows(database, "select count(*) from message") == [(0,)]


def test_a_transformation_is_made_once_and_kept_with_its_delivery(
    database: Database, bus: Bus, eventually: Eventually
) -> None:
    template = {"type": "template", "output": {"number": "${payload.n}", "what": "${messageType}"}}
    add_route(database, "shaped", pattern="#", destinations=["d"], transformation=template)
    message = send(bus)
    eventually(lambda: deliveries(database, message))
    query = "select f.payload from form f join job j on j.id = f.delivery_id where j.message_id = %s"
    ((form,),) = rows(database, query, message)
    assert json.loads(form) == {"number": 1, "what": "order.made"}


def test_a_transformation_that_fails_ends_that_delivery_alone(
    database: Database, bus: Bus, eventually: Eventually
) -> None:
    broken = {"type": "template", "output": "${payload.missing.field}"}
    add_route(database, "r", pattern="#", destinations=[{"service": "a", "transformation": broken}, "b"])
    message = send(bus)
    eventually(lambda: deliveries(database, message) == [("b", "r")])
    query = "select status, class, last->>'error' from delivery where message_id = %s"
    ((status, error_class, reason),) = rows(database, query, message)
    assert (status, error_class) == ("dead", "TransformationError") and "missing" in reason
    assert len(rows(database, "select 1 from dead_letter where message_id = %s", message)) == 1


def test_what_a_validation_turns_down_ends_as_a_validation_error(
    database: Database, bus: Bus, eventually: Eventually
) -> None:
    strict = {"type": "validate", "schema": {"required": ["id"]}}
    add_route(database, "r", pattern="#", destinations=[{"service": "a", "transformation": strict}])
    message = send(bus)
    query = "select status, class, last->>'error' from delivery where message_id = %s"
    eventually(lambda: rows(database, query, message))
    ((status, error_class, reason),) = rows(database, query, message)
    assert (status, error_class) == ("dead", "ValidationError") and "'id' is a required" in reason


def test_a_delivery_outside_the_clients_grant_is_forbidden_and_the_rest_goes_out(
    database: Database, bus: Bus, eventually: Eventually
) -> None:
    client = "01890000-0000-7000-8000-000000000001"
    with database.cursor() as cursor:
        cursor.execute("insert into client (id, name, allowed_services) values (%s, 'shop', '{b}')", (client,))
    add_route(database, "r", pattern="#", destinations=["a", "b"])
    message = send(bus, client_id=client)
    eventually(lambda: deliveries(database, message) == [("b", "r")])
    query = "select l.name, d.status from delivery d join lane l on l.id = d.lane_id where d.message_id = %s"
    assert rows(database, query, message) == [("a", "forbidden")]


def test_deliveries_of_one_key_are_queued_in_the_order_of_acceptance(
    database: Database, bus: Bus, eventually: Eventually
) -> None:
    add_route(database, "r", pattern="#", destinations=["d"])
    wanted = [send(bus, ordering_key="k") for _ in range(20)]
    query = "select message_id from job where pool = 2 order by seq"
    eventually(lambda: [m for (m,) in rows(database, query)] == wanted)
    states = [s for (s,) in rows(database, "select state from job where pool = 2 order by seq")]
    assert states == ["r"] + ["q"] * 19


def test_a_message_waits_for_its_time(database: Database, bus: Bus, eventually: Eventually) -> None:
    add_route(database, "r", pattern="#", destinations=["d"])
    message = send(bus, deliver_at=datetime.now(UTC) + timedelta(seconds=1))
    assert rows(database, "select state from job where id = %s", message) == [("s",)]
    eventually(lambda: deliveries(database, message) == [("d", "r")], seconds=5)


def test_routes_that_change_are_taken_in_one_by_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book(database)
    service = Routes(database)

    def table() -> set[tuple[str, str]]:
        with database.cursor() as cursor:
            rev = revision.current(cursor)
        return {(route.name, route.pattern) for route in book.at(rev).routes}

    made = [service.register({"name": f"r{n}", "pattern": "a.b", "destinations": ["s"]}, by="me") for n in range(3)]
    assert table() == {("r0", "a.b"), ("r1", "a.b"), ("r2", "a.b")}
    monkeypatch.setattr(routes, "in_force", lambda cursor: pytest.fail("every route was read again"))
    service.change(made[0].id, lambda row: {"name": "r0", "pattern": "c", "destinations": ["s"]}, by="me")
    assert table() == {("r0", "c"), ("r1", "a.b"), ("r2", "a.b")}
    service.delete(made[1].id, lambda row: None, by="me")
    service.register({"name": "r3", "pattern": "d", "destinations": ["s"]}, by="me")
    assert table() == {("r0", "c"), ("r2", "a.b"), ("r3", "d")}


def test_no_change_is_missed_however_changes_and_looks_fall_together(database: Database) -> None:
    book, stop = Book(database), threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not stop.is_set():
            with database.cursor() as cursor:
                rev = revision.current(cursor)
            seen.append(len(book.at(rev).routes))

    looker = threading.Thread(target=look)
    looker.start()
    service = Routes(database)

    def make(start: int) -> None:
        for n in range(start, start + 20):
            service.register({"name": f"r{n}", "pattern": "a", "destinations": ["s"]}, by="me")

    makers = [threading.Thread(target=make, args=(100 * k,)) for k in range(3)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    stop.set()
    looker.join()
    with database.cursor() as cursor:
        rev = revision.current(cursor)
    assert len(book.at(rev).routes) == 60
    assert seen == sorted(seen)
