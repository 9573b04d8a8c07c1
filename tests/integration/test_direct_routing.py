"""Routing at accept: what needs no more than a match has its deliveries in the transaction that stores it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from esb_workers.app import make_celery
from esb_workers.bus import Bus, NewMessage
from esb_workers.registry.clients import Client, client_of
from esb_workers.routing.direct import FEW
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store import clients, messages, revision, routes
from esb_workers.store.engine import Database, StaleRevision
from esb_workers.store.ids import new_id

Eventually = Callable[..., None]


@pytest.fixture
def bus(database: Database) -> Iterator[Bus]:
    """A front door without any worker behind it, and without a broker."""
    bus = Bus(database, Ringer(make_celery(Settings.load({}, None, broker_url="redis://127.0.0.1:1/0"))))
    yield bus
    bus.close()


@pytest.fixture
def client_id(database: Database) -> str:
    with database.transaction() as connection:
        values = {"name": "shop", "allowed_services": ["billing", "audit"], "allowed_message_types": ["#"]}
        row = clients.add(connection, values)
        connection.exec_driver_sql("select esb_changed('clients')")
    return row.id


def add_route(database: Database, name: str, priority: int = 0, **body: Any) -> str:
    with database.transaction() as connection:
        made = routes.add(connection, name, priority, True, body)
        connection.exec_driver_sql("select esb_changed('routes')")
    return made.id


def present(database: Database) -> dict[str, int]:
    """What is known of clients by whoever has just looked."""
    with database.cursor() as cursor:
        return {"clients": revision.by_topic(cursor)["clients"]}


def client(database: Database, client_id: str | None) -> Client | None:
    if client_id is None:
        return None
    with database.read() as connection:
        row = clients.get(connection, client_id)
    assert row is not None
    return client_of(row)


def message_of(client_id: str | None, payload: Any = 1, **fields: Any) -> NewMessage:
    return NewMessage("shop", "order.made", "corr-1", "{}", json.dumps(payload), client_id=client_id, **fields)


def send(bus: Bus, client_id: str | None, payload: Any = 1, **fields: Any) -> str:
    """Send a message at a moment when the front door has taken in every change."""
    bus.router.renew()
    new = message_of(client_id, payload, **fields)
    bus.route(new, client(bus.database, client_id))
    (outcome,) = bus.publish([new], present(bus.database))
    return outcome.id


def jobs_of(database: Database, message: str) -> list[tuple[int, str, str]]:
    with database.cursor() as cursor:
        cursor.execute(
            "select j.pool, l.name, j.state from job j join lane l on l.id = j.lane_id"
            " where j.message_id = %s order by j.seq",
            (message,),
        )
        return list(cursor.fetchall())


def test_a_message_that_only_needs_a_match_is_routed_when_it_is_stored(
    database: Database, bus: Bus, client_id: str
) -> None:
    add_route(database, "r", pattern="order.*", destinations=["billing", "audit"], filter="payload.n > 1")
    add_route(database, "other", pattern="user.*", destinations=["audit"])
    message = send(bus, client_id, {"n": 2})
    assert jobs_of(database, message) == [(2, "billing", "r"), (2, "audit", "r")]


def test_what_nobody_takes_is_left_to_the_routing_pool(database: Database, bus: Bus, client_id: str) -> None:
    add_route(database, "r", pattern="order.*", destinations=["billing"], filter="payload.n > 1")
    assert jobs_of(database, send(bus, client_id, {"n": 1})) == [(1, client_id, "r")]


@pytest.mark.parametrize(
    "body",
    [
        {"transformation": {"type": "template", "output": "${payload}"}},
        {"destinations": [{"service": "billing", "transformation": {"type": "template", "output": "${payload}"}}]},
        {"orderingKey": "${payload.n}"},
        {"destinations": [{"service": "billing", "orderingKey": "${payload.n}"}]},
        {"destinations": ["billing", "audit"], "strategy": "first_available"},
        {"destinations": ["billing", "mail"]},  # one that the client's grant does not cover
    ],
)
def test_a_route_that_does_more_than_match_is_left_to_the_routing_pool(
    database: Database, bus: Bus, client_id: str, body: dict[str, Any]
) -> None:
    add_route(database, "r", **{"pattern": "order.*", "destinations": ["billing"]} | body)
    assert jobs_of(database, send(bus, client_id, {"n": 1})) == [(1, client_id, "r")]


@pytest.mark.parametrize(
    "fields",
    [
        {"ordering_key": "k"},
        {"deliver_at": datetime.now(UTC) + timedelta(hours=1)},
        {"expires_at": datetime.now(UTC) + timedelta(hours=1)},
        {"reply_to": "audit"},
        {"payload": "x" * 70_000},
    ],
)
def test_a_message_that_asks_for_more_is_left_to_the_routing_pool(
    database: Database, bus: Bus, client_id: str, fields: dict[str, Any]
) -> None:
    add_route(database, "r", pattern="order.*", destinations=["billing"])
    message = send(bus, client_id, **fields)
    assert [pool for pool, _, _ in jobs_of(database, message)] == [1]


def test_the_operators_messages_go_by_way_of_the_routing_pool(database: Database, bus: Bus) -> None:
    add_route(database, "r", pattern="order.*", destinations=["billing"])
    assert jobs_of(database, send(bus, None)) == [(1, "operator", "r")]


def test_what_was_matched_with_routes_that_have_changed_is_routed_anew_by_the_pool(
    database: Database, bus: Bus, client_id: str
) -> None:
    add_route(database, "r", pattern="order.*", destinations=["billing"])
    bus.router.renew()
    new = message_of(client_id)
    bus.route(new, client(database, client_id))
    assert new.deliveries
    add_route(database, "r2", pattern="order.*", destinations=["audit"])
    (outcome,) = bus.publish([new], present(database))
    assert (outcome.outcome, outcome.direct) == ("accepted", False)
    assert jobs_of(database, outcome.id) == [(1, client_id, "r")]


def test_a_message_that_meets_a_change_is_matched_once_more(database: Database, bus: Bus, client_id: str) -> None:
    add_route(database, "r", pattern="order.*", destinations=["billing"])
    bus.router.renew()
    add_route(database, "r2", pattern="order.*", destinations=["audit"])
    outcome = bus.send(message_of(client_id), client(database, client_id), present(database))
    assert (outcome.outcome, outcome.direct) == ("accepted", True)
    assert jobs_of(database, outcome.id) == [(2, "billing", "r"), (2, "audit", "r")]


def test_a_message_waits_for_no_more_than_one_change(
    database: Database, bus: Bus, client_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_route(database, "r", pattern="order.*", destinations=["billing"])
    bus.router.renew()
    add_route(database, "r2", pattern="order.*", destinations=["audit"])
    monkeypatch.setattr(bus.router, "renewed", lambda *_: None)  # it takes too long
    known = {"message_id": "m-1", "scope": f"{client_id}:message"}
    outcome = bus.send(message_of(client_id, **known), client(database, client_id), present(database))
    assert jobs_of(database, outcome.id) == [(1, client_id, "r")]
    again = bus.send(message_of(client_id, **known), client(database, client_id), present(database))
    assert (again.outcome, again.id) == ("duplicate", outcome.id)


def test_a_change_is_taken_in_by_itself_once_a_message_has_met_it(
    database: Database, bus: Bus, client_id: str, eventually: Eventually
) -> None:
    add_route(database, "r", pattern="order.*", destinations=["billing"])
    bus.router.renew()
    add_route(database, "r2", pattern="order.*", destinations=["audit"])
    sender = client(database, client_id)

    def routed_at_accept() -> bool:
        new = message_of(client_id)
        bus.route(new, sender)
        (outcome,) = bus.publish([new], present(database))
        return outcome.direct and len(jobs_of(database, outcome.id)) == 2

    eventually(routed_at_accept)


def test_the_first_message_does_not_wait_until_all_routes_are_read(
    database: Database, bus: Bus, client_id: str, eventually: Eventually
) -> None:
    add_route(database, "r", pattern="order.*", destinations=["billing"])
    sender = client(database, client_id)
    new = message_of(client_id)
    bus.route(new, sender)
    assert new.deliveries is None

    def routed() -> object:
        bus.route(new, sender)
        return new.deliveries

    eventually(routed)


def test_a_process_that_knows_of_no_route_for_a_message_hears_of_the_first(
    database: Database, bus: Bus, client_id: str
) -> None:
    bus.router.renew()
    add_route(database, "r", pattern="order.*", destinations=["billing"])
    new = message_of(client_id)
    outcome = bus.send(new, client(database, client_id), present(database))
    assert new.deliveries is not None and outcome.direct


def test_a_change_of_many_routes_is_seen_whole_or_not_at_all(database: Database, bus: Bus, client_id: str) -> None:
    bus.router.renew()
    ids = [add_route(database, f"r{n}", pattern="order.*", destinations=["billing"]) for n in range(2 * FEW)]
    assert len(jobs_of(database, send(bus, client_id))) == len(ids)


def test_a_grant_that_has_changed_stores_nothing_and_holds_up_no_neighbour(
    database: Database, bus: Bus, client_id: str
) -> None:
    known = present(database)
    with database.transaction() as connection:
        connection.exec_driver_sql("select esb_changed('clients')")
    with pytest.raises(StaleRevision):
        bus.publish([message_of(client_id)], known)
    rows = [
        {"i": i, "id": new_id(), "lane": 1, "source": "s", "type": "t", "corr": "c", "headers": "{}", "payload": "1"}
        for i in range(3)
    ]
    rows[1]["known"] = known
    with database.cursor() as cursor:
        outcomes = messages.accept_each(cursor, rows)
        cursor.execute("select count(*) from message")
        assert cursor.fetchone() == (2,)
    assert {o.i: o.outcome for o in outcomes} == {0: "accepted", 1: "stale", 2: "accepted"}


def test_a_batch_decided_by_one_grant_is_stale_with_it(database: Database) -> None:
    known = present(database)

    def accept() -> list[str]:
        rows = [
            {
                "i": i,
                "id": new_id(),
                "lane": 1,
                "source": "s",
                "type": "t",
                "corr": "c",
                "headers": "{}",
                "payload": "1",
            }
            | {"known": dict(known), "ext": f"m-{i}", "scope": "c:message", "hash": "00"}
            for i in range(3)
        ]
        with database.cursor() as cursor:
            return [outcome.outcome for outcome in messages.accept_each(cursor, rows)]

    assert accept() == ["accepted"] * 3
    assert accept() == ["duplicate"] * 3
    with database.transaction() as connection:
        connection.exec_driver_sql("select esb_changed('clients')")
    assert accept() == ["stale"] * 3
    with database.cursor() as cursor:
        cursor.execute("select count(*) from message")
        assert cursor.fetchone() == (3,)


def test_a_change_of_routes_makes_no_grant_stale(database: Database, bus: Bus, client_id: str) -> None:
    known = present(database)
    add_route(database, "r", pattern="order.*", destinations=["billing"])
    assert bus.publish([message_of(client_id)], known)[0].outcome == "accepted"


def test_of_a_batch_that_is_stale_in_part_nothing_is_stored(database: Database, bus: Bus, client_id: str) -> None:
    good, bad = message_of(client_id), replace(message_of(client_id), judged=-1)
    with pytest.raises(StaleRevision):
        bus.publish([good, bad], present(database))
    with database.cursor() as cursor:
        cursor.execute("select count(*) from message")
        assert cursor.fetchone() == (0,)


def test_a_repeat_of_a_message_makes_no_second_delivery(database: Database, bus: Bus, client_id: str) -> None:
    add_route(database, "r", pattern="order.*", destinations=["billing"])
    known = {"message_id": "m-1", "scope": f"{client_id}:message"}
    message = send(bus, client_id, **known)
    assert send(bus, client_id, **known) == message
    assert len(jobs_of(database, message)) == 1


def test_priority_counts_as_it_does_in_the_routing_pool(database: Database, bus: Bus, client_id: str) -> None:
    add_route(database, "r", pattern="order.*", destinations=["billing"])
    low, plain, high = (send(bus, client_id, priority=p) for p in (0, None, 9))
    with database.cursor() as cursor:
        cursor.execute("select message_id from job where pool = 2 order by run_at")
        assert [row[0] for row in cursor.fetchall()] == [high, plain, low]
