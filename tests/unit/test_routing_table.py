"""Routes: what is refused when they are saved, which of them take a message, and what they say when asked why."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.errors import Invalid, TransformationError
from esb_workers.routing import matching
from esb_workers.routing.route import Route, compile_route
from esb_workers.routing.strategies import Chooser
from esb_workers.routing.table import RoutingTable

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
MESSAGE: dict[str, Any] = {
    "source": "api-gateway",
    "messageType": "user.created",
    "correlationId": "c-1",
    "headers": {"eventType": "user.created"},
    "payload": {"userId": "123", "total": 12.5},
    "orderingKey": "k",
}
_number = iter(range(10_000))


def route(**fields: Any) -> Route:
    number = next(_number)
    body = {"name": f"r{number}", "pattern": "user.*", "destinations": ["users"]} | fields
    return compile_route(body, route_id=f"{number:08}")


def taken(*routes: Route, message: dict[str, Any] = MESSAGE, chooser: Chooser | None = None) -> dict[str, list[str]]:
    matches = RoutingTable(routes, chooser).match(message, NOW)
    return {match.route.name: [destination.service for destination in match.destinations] for match in matches}


def test_the_route_of_the_specification_takes_its_message() -> None:
    wanted = compile_route(
        {
            "name": "user-events",
            "pattern": "user.*",
            "destinations": ["user-service", "analytics-service"],
            "conditions": {"header.eventType": "user.created"},
        }
    )
    assert taken(wanted) == {"user-events": ["user-service", "analytics-service"]}
    assert taken(wanted, message=MESSAGE | {"headers": {}}) == {}
    assert taken(wanted, message=MESSAGE | {"messageType": "user.created.eu"}) == {}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"pattern": "#"}, True),
        ({"pattern": "order.*"}, False),
        ({"enabled": False}, False),
        ({"conditions": {}}, True),
        ({"conditions": None, "filter": None}, True),
        ({"conditions": {"payload.total": [{"numeric": [">", 10]}]}}, True),
        ({"conditions": {"payload.total": [{"numeric": [">", 20]}]}}, False),
        ({"filter": "payload.total > 10 && headers.eventType == messageType"}, True),
        ({"filter": "payload.total > 20"}, False),
        ({"filter": "payload.nope > 20"}, False),
        ({"filter": "payload.total"}, False),
        ({"filter": "now > timestamp('2026-01-01T00:00:00Z') && message.source == source"}, True),
        ({"destinations": [{"service": "users", "condition": "payload.total > 20"}]}, False),
    ],
)
def test_a_route_takes_a_message_when_every_clause_says_yes(fields: dict[str, Any], expected: bool) -> None:
    wanted = route(**fields)
    assert bool(taken(wanted)) is expected
    verdict = RoutingTable([wanted]).explain(MESSAGE, NOW)[0]
    assert verdict["matched"] is expected and bool(verdict["reasons"]) is not expected


def test_higher_priority_comes_first_and_may_be_the_last() -> None:
    low, high, middle = route(priority=-1), route(priority=9), route(priority=5, stopOnMatch=True)
    assert list(taken(low, high, middle)) == [high.name, middle.name]
    unmatched = route(priority=7, stopOnMatch=True, filter="false")
    assert list(taken(low, high, unmatched)) == [high.name, low.name]
    older, newer = route(), route()
    assert list(taken(newer, older)) == [older.name, newer.name]


def test_a_default_route_takes_what_no_other_took() -> None:
    default, plain = route(default=True, pattern="#", priority=100), route(filter="payload.total > 10")
    assert list(taken(default, plain)) == [plain.name]
    assert list(taken(default, plain, message=MESSAGE | {"payload": {"total": 1}})) == [default.name]
    assert list(taken(default, plain, message=MESSAGE | {"messageType": "x"})) == [default.name]


DESTINATIONS = [{"service": "a", "weight": 1}, {"service": "b", "weight": 3}, {"service": "c", "weight": 0}]


def test_round_robin_takes_turns() -> None:
    table = RoutingTable([route(strategy="round_robin", destinations=DESTINATIONS)])
    sent = [table.match(MESSAGE, NOW)[0].destinations[0].service for _ in range(6)]
    assert sent == ["a", "b", "c", "a", "b", "c"]
    table.explain(MESSAGE, NOW)
    assert table.match(MESSAGE, NOW)[0].destinations[0].service == "a"


def test_weighted_draws_by_the_weights() -> None:
    drawn = iter([0.0, 0.24, 0.25, 0.99])
    table = RoutingTable([route(strategy="weighted", destinations=DESTINATIONS)], Chooser(random=lambda: next(drawn)))
    sent = [table.match(MESSAGE, NOW)[0].destinations[0].service for _ in range(4)]
    assert Counter(sent) == {"a": 2, "b": 2}
    none = route(strategy="weighted", destinations=[{"service": "a", "weight": 0}, {"service": "b", "weight": 0}])
    assert taken(none) == {none.name: ["a"]}


def test_first_available_skips_what_would_be_held() -> None:
    wanted = route(strategy="first_available", destinations=["a", "b@^1.2"])
    assert taken(wanted) == {wanted.name: ["a"]}
    assert taken(wanted, chooser=Chooser(available=lambda d: d.name == "b")) == {wanted.name: ["b@^1.2"]}
    assert taken(wanted, chooser=Chooser(available=lambda d: False)) == {wanted.name: ["a"]}


def test_a_wire_tap_gets_its_copy_and_is_never_the_choice() -> None:
    tapped = route(strategy="round_robin", destinations=["a", {"service": "tap", "wireTap": True}, "b"])
    table = RoutingTable([tapped])
    sent = [[d.service for d in table.match(MESSAGE, NOW)[0].destinations] for _ in range(3)]
    assert sent == [["a", "tap"], ["tap", "b"], ["a", "tap"]]


def test_conditions_of_destinations_choose_among_them() -> None:
    wanted = route(
        destinations=[
            {"service": "big", "condition": "payload.total > 100"},
            {"service": "small", "condition": "payload.total <= 100"},
            {"service": "broken", "condition": "payload.nope"},
        ]
    )
    assert taken(wanted) == {wanted.name: ["small"]}


def test_a_delivery_takes_the_route_s_form_and_then_the_destination_s() -> None:
    wanted = route(
        transformation={"type": "pick", "fields": ["total"]},
        destinations=[
            "plain",
            {"service": "own", "transformation": [{"type": "set", "fields": {"twice": "${payload.total * 2}"}}]},
        ],
    )
    variables = matching.variables_of(MESSAGE, NOW)
    forms = [matching.form(wanted, destination, variables)[0] for destination in wanted.destinations]
    assert forms == [{"total": 12.5}, {"total": 12.5, "twice": 25.0}]
    assert MESSAGE["payload"] == {"userId": "123", "total": 12.5}
    assert matching.transforms(wanted, wanted.destinations[0])
    assert not matching.transforms(route(), wanted.destinations[0])


def test_the_nearest_ordering_key_orders() -> None:
    variables = matching.variables_of(MESSAGE, NOW)

    def key(wanted: Route) -> str | None:
        return matching.ordering_key(wanted, wanted.destinations[0], MESSAGE, variables)

    own = {"service": "a", "orderingKey": "d-${payload.total}"}
    assert key(route()) == "k"
    assert key(route(orderingKey="${payload.userId}")) == "123"
    assert key(route(orderingKey="${payload.userId}", destinations=[own])) == "d-12.5"
    assert key(route(orderingKey="${payload.gone}")) is None


def test_explaining_names_the_clause_that_said_no() -> None:
    routes = [
        route(name="other", pattern="order.#", priority=9),
        route(name="off", enabled=False, priority=8),
        route(name="cond", conditions={"payload.userId": "9"}, priority=7),
        route(name="filt", filter="payload.gone == 1", priority=6),
        route(name="taker", stopOnMatch=True, transformation={"type": "template", "output": ["${payload.userId}"]}),
        route(name="late", priority=-5),
        route(name="rest", default=True, pattern="#"),
    ]
    verdicts = {verdict["route"]: verdict for verdict in RoutingTable(routes).explain(MESSAGE, NOW)}
    assert list(verdicts) == ["other", "off", "cond", "filt", "taker", "rest", "late"]
    assert verdicts["other"]["reasons"] == ["pattern: order.# does not match user.created"]
    assert verdicts["off"]["reasons"] == ["the route is disabled"]
    assert verdicts["cond"]["reasons"] == ['conditions: payload.userId is "123", wanted ["9"]']
    assert verdicts["filt"]["reasons"] == ["filter: no such key 'gone' in `payload.gone == 1`"]
    assert verdicts["late"]["reasons"] == ["stopped by route taker"]
    assert verdicts["rest"]["reasons"] == ["stopped by route taker"]
    assert verdicts["taker"]["matched"] and verdicts["taker"]["destinations"] == ["users"]
    assert verdicts["taker"]["transformedPayload"] == ["123"]


def test_explaining_tells_a_transformation_that_would_fail() -> None:
    wanted = route(transformation={"type": "set", "fields": {"x": "${payload.gone}"}})
    verdict = RoutingTable([wanted]).explain(MESSAGE, NOW)[0]
    assert verdict["matched"] and verdict["transformedPayload"] is None
    assert "gone" in verdict["reasons"][0] and "gone" in verdict["deliveries"][0]["error"]
    with pytest.raises(TransformationError):
        matching.form(wanted, wanted.destinations[0], matching.variables_of(MESSAGE, NOW))


FULL: dict[str, Any] = {
    "id": "ignored",
    "name": "full",
    "pattern": "a.#",
    "destinations": [
        {
            "service": "billing@>=1.2 <2",
            "path": "orders/${payload.id}",
            "method": "PUT",
            "transformation": {"type": "drop", "fields": ["x"]},
            "timeout": 500,
            "retryPolicy": {"maxRetries": 2},
            "orderingKey": "${payload.id}",
            "weight": 2,
            "condition": "true",
            "wireTap": False,
            "onDead": "block",
        }
    ],
    "conditions": {"payload.a": [1]},
    "filter": "true",
    "transformation": [{"type": "drop", "fields": ["y"]}],
    "priority": 3,
    "stopOnMatch": True,
    "enabled": True,
    "strategy": "weighted",
    "retryPolicy": {"schedule": [1000]},
    "timeout": 1000,
    "orderingKey": "x",
    "default": False,
    "split": None,
}


def test_every_field_of_a_route_is_understood() -> None:
    wanted = compile_route(FULL, route_id="r-1")
    destination = wanted.destinations[0]
    assert (wanted.id, wanted.priority, wanted.strategy, wanted.timeout) == ("r-1", 3, "weighted", 1000)
    assert (destination.name, destination.service) == ("billing", "billing@>=1.2 <2")
    assert destination.blocks_when_dead and destination.timeout == 500 and destination.method == "PUT"
    assert destination.path is not None
    assert destination.path.render_string_percent_encoded({"payload": {"id": "a/b"}}) == "orders/a%2Fb"


@pytest.mark.parametrize(
    ("fields", "path", "reason"),
    [
        ({"name": None}, "name", "required"),
        ({"name": "-x"}, "name", "letters"),
        ({"pattern": "a..b"}, "pattern", "position 3"),
        ({"pattern": 5}, "pattern", "string"),
        ({"destinations": []}, "destinations", "1 to 100"),
        ({"destinations": "users"}, "destinations", "1 to 100"),
        ({"destinations": ["a"] * 101}, "destinations", "1 to 100"),
        ({"destinations": ["a", 5]}, "destinations[1]", "name of a service"),
        ({"destinations": ["a b"]}, "destinations[0]", "letters"),
        ({"destinations": ["a@nope"]}, "destinations[0]", "version range"),
        ({"destinations": [{}]}, "destinations[0].service", "required"),
        ({"destinations": [{"service": "a", "nope": 1}]}, "destinations[0].nope", "no such field"),
        ({"destinations": [{"service": "a", "wireTap": True}]}, "destinations", "not a wire tap"),
        ({"destinations": [{"service": "a", "weight": -1}]}, "destinations[0].weight", "whole number"),
        ({"destinations": [{"service": "a", "timeout": 0}]}, "destinations[0].timeout", "whole number"),
        ({"destinations": [{"service": "a", "method": "FETCH"}]}, "destinations[0].method", "one of"),
        ({"destinations": [{"service": "a", "path": "${"}]}, "destinations[0].path", "never closed"),
        ({"destinations": [{"service": "a", "onDead": "skip"}]}, "destinations[0].onDead", "one of"),
        ({"destinations": [{"service": "a", "condition": "1 +"}]}, "destinations[0].condition", "column 4"),
        (
            {"destinations": [{"service": "a", "retryPolicy": {"maxRetries": -1}}]},
            "destinations[0].retryPolicy.maxRetries",
            "whole number",
        ),
        ({"conditions": {"x": ["y"]}}, "conditions.x", "not a field of a message"),
        ({"conditions": []}, "conditions", "object"),
        ({"filter": "a ="}, "filter", "column"),
        ({"filter": 5}, "filter", "CEL"),
        ({"transformation": {"type": "enrich"}}, "transformation.service", "is required"),
        ({"priority": 1.5}, "priority", "whole number"),
        ({"priority": True}, "priority", "whole number"),
        ({"enabled": "yes"}, "enabled", "true or false"),
        ({"strategy": "nope"}, "strategy", "one of"),
        ({"strategy": "recipient_list"}, "recipients", "recipient_list"),
        ({"split": {"items": 7}}, "split.items", "must be a string"),
        ({"slip": []}, "slip", "list of strings"),
        ({"slip": "${x}", "strategy": "weighted"}, "slip", "does not go with"),
        ({"recipients": "${x}", "strategy": "all"}, "recipients", "recipient_list"),
        ({"replyTo": "x"}, "replyTo", "no such field"),
        ({"colour": 1}, "colour", "no such field"),
    ],
)
def test_a_bad_route_is_refused_with_the_path(fields: dict[str, Any], path: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        route(**fields)
    assert [error.path for error in caught.value.errors] == [path]
    assert reason in caught.value.errors[0].message


def test_all_faults_of_a_route_are_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        compile_route({"pattern": "a.", "destinations": [{"weight": "x"}], "filter": "(", "x": 1})
    paths = {error.path for error in caught.value.errors}
    assert paths == {"name", "pattern", "destinations[0].service", "destinations[0].weight", "filter", "x"}


WORDS = st.sampled_from(["a", "b"])
PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from(["*", "#"])), min_size=1, max_size=3).map(".".join)
ROUTES = st.lists(
    st.fixed_dictionaries(
        {
            "pattern": PATTERNS,
            "priority": st.integers(0, 2),
            "stopOnMatch": st.booleans(),
            "enabled": st.booleans(),
            "default": st.booleans(),
            "filter": st.sampled_from([None, "payload.n > 0", "payload.n > 1"]),
        }
    ),
    max_size=8,
)


@given(ROUTES, st.lists(WORDS, min_size=1, max_size=3).map(".".join), st.integers(0, 2))
def test_explaining_and_matching_agree(bodies: list[dict[str, Any]], message_type: str, n: int) -> None:
    table = RoutingTable([route(**body) for body in bodies])
    message = {"messageType": message_type, "payload": {"n": n}, "headers": {}, "source": "s"}
    explained = [v["routeId"] for v in table.explain(message, NOW) if v["matched"]]
    assert explained == [match.route.id for match in table.match(message, NOW)]


def test_a_hundred_routes_cost_what_matches() -> None:
    others = [route(pattern=f"other.{n}.*", filter="payload.total > 1") for n in range(99)]
    one, hundred = RoutingTable([route()]), RoutingTable([*others, route()])

    def cost(table: RoutingTable) -> float:
        best = float("inf")
        for _ in range(20):
            started = time.perf_counter()
            for _ in range(200):
                table.match(MESSAGE, NOW)
            best = min(best, time.perf_counter() - started)
        return best

    assert cost(hundred) < 3 * cost(one)
