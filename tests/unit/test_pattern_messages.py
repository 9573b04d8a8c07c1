"""Patterns of routes: a message's fields as roots, and the reasons why not."""

from __future__ import annotations

from typing import Any

import pytest

from esb_workers.errors import Invalid
from esb_workers.expressions.patterns import ROUTE_ROOTS, compile_conditions

MESSAGE = {
    "source": "api-gateway",
    "messageType": "user.created",
    "correlationId": "c-1",
    "headers": {"eventType": "user.created", "X-Region": "eu"},
    "payload": {"userId": "123", "total": 12.5, "vip": True},
}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"header.eventType": "user.created"}, True),
        ({"headers.EVENTTYPE": "user.created"}, True),
        ({"header": {"x-region": ["eu"]}}, True),
        ({"header.x-region": "us"}, False),
        ({"payload.userId": "123", "source": "api-gateway"}, True),
        ({"payload.total": 12.5}, True),
        ({"payload.vip": True}, True),
        ({"payload.missing": None}, False),
        ({"messageType": "user.created", "correlationId": "c-1"}, True),
        ({"payload": {"total": [{"numeric": [">", 10]}]}}, True),
        ({"header.gone": [{"exists": False}]}, True),
    ],
)
def test_a_bare_value_under_a_root_is_a_list_of_one(pattern: dict[str, Any], expected: bool) -> None:
    assert compile_conditions(pattern, roots=ROUTE_ROOTS).matches(MESSAGE) is expected


def test_in_a_route_only_the_fields_of_a_message_are_roots() -> None:
    for pattern in ({"detail": {"a": ["x"]}}, {"payloads.a": ["x"]}, {"$or": [{"x": ["y"]}, {"source": ["z"]}]}):
        with pytest.raises(Invalid, match="not a field of a message"):
            compile_conditions(pattern, roots=ROUTE_ROOTS)
    with pytest.raises(Invalid):
        compile_conditions({"payload": 5}, roots=ROUTE_ROOTS)


def test_one_header_asked_for_twice_means_the_last() -> None:
    assert compile_conditions({"header.a": "x", "headers.A": "y"}).matches({"headers": {"a": "y"}})


def test_the_reasons_name_each_clause_that_said_no() -> None:
    reasons = compile_conditions({"payload.userId": "9", "source": "x", "header.gone": "y"}).explain(MESSAGE)
    assert reasons == [
        'headers.gone is absent, wanted ["y"]',
        'payload.userId is "123", wanted ["9"]',
        'source is "api-gateway", wanted ["x"]',
    ]
