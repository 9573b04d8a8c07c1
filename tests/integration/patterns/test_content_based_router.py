"""Content-based router, message filter and default route: what a message says decides who gets it."""

from __future__ import annotations

from tests.integration.patterns.conftest import Scene


def test_content_decides_and_the_default_route_takes_the_rest(running: Scene) -> None:
    for name in ("eu", "world"):
        running.service(name)
    running.route(name="eu", conditions={"payload.country": ["SE", "DE"]}, destinations=["eu"])
    running.route(name="rest", default=True, destinations=["world"])
    running.ended(running.send({"country": "SE"}))
    running.ended(running.send({"country": "US"}))
    assert running.got("eu") == [{"country": "SE"}] and running.got("world") == [{"country": "US"}]


def test_what_a_filter_holds_back_goes_nowhere_and_is_kept(running: Scene) -> None:
    running.route(filter="payload.total > 1000", destinations=["desk"])
    shown = running.ended(running.send({"total": 5}))
    assert shown["status"] == "unroutable" and shown["payload"] == {"total": 5}
