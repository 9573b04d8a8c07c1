"""Routing at accept: what needs no more than a match has its deliveries in the transaction that stores it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from esb_workers.app import make_celery
from esb_workers.bus import Bus, NewMessage
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store import clients, revision, routes
from esb_workers.store.engine import Database, StaleRevision


@pytest.fixture
def bus(database: Database) -> Iterator[Bus]:
    """A front door without any worker behind it, and without a broker."""
    ringer = Ringer(make_celery(Settings.load({}, None, broker_url="redis://127.0.0.1:1/0")))
    yield Bus(database, ringer)
    ringer.close()


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


def present(database: Database) -> int:
    with database.cursor() as cursor:
        return revision.current(cursor)


def send(bus: Bus, client_id: str | None, payload: Any = 1, **fields: Any) -> str:
    rev = present(bus.database)
    new = NewMessage("shop", "order.made", "corr-1", "{}", json.dumps(payload), client_id=client_id, **fields)
    (outcome,) = bus.publish([bus.routed(new, rev)], rev)
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


def test_nothing_is_stored_that_was_matched_with_routes_that_have_changed(
    database: Database, bus: Bus, client_id: str
) -> None:
    add_route(database, "r", pattern="order.*", destinations=["billing"])
    rev = present(database)
    new = bus.routed(NewMessage("shop", "order.made", "c", "{}", "1", client_id=client_id), rev)
    assert new.deliveries
    add_route(database, "r2", pattern="order.*", destinations=["audit"])
    with pytest.raises(StaleRevision):
        bus.publish([new], rev)
    message = send(bus, client_id)
    assert jobs_of(database, message) == [(2, "billing", "r"), (2, "audit", "r")]


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
