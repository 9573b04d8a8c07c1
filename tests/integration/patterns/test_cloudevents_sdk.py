"""CloudEvents' own SDK takes what goes out, and what it makes is taken; a Standard Webhooks verifier agrees."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
from cloudevents.core.bindings import http as sdk
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1 import conversion
from cloudevents.v1.http import CloudEvent as OlderEvent

from tests.integration.patterns.conftest import Scene

SECRET = "whsec_" + "c2VjcmV0" * 4
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER_TRACE = "00-11111111111111111111111111111111-2222222222222222-01"
ATTRIBUTES = {
    "id": "order-1",
    "source": "https://shop.example/orders?x=1#y",
    "type": "order.placed",
    "subject": 'Euro € 😀 "100%"',
    "time": datetime(2026, 1, 31, 8, 0, 0, 123456, tzinfo=UTC),
    "dataschema": "https://shop.example/schema",
    "datacontenttype": "application/json",
    "correlationid": "c-1",
    "partitionkey": "käse 1",
    "expirytime": "2099-01-01T00:00:00Z",
    "traceparent": TRACE,
    "dataref": "https://shop.example/data?a=b%20c",
}
DATA = {"total": 3.5, "note": "käse"}


def event(**changes: Any) -> CloudEvent:
    return CloudEvent({"specversion": "1.0", **ATTRIBUTES, **changes}, DATA)


def posted(scene: Scene, message: sdk.HTTPMessage, **headers: str) -> dict[str, Any]:
    """The answer to what the SDK made for HTTP."""
    key = scene.api._key or ""
    sent = scene.api.app.test_client().post(
        "/routing/events", data=message.body, headers={**message.headers, "X-API-Key": key, **headers}
    )
    assert sent.status_code == 202, sent.json
    answer: dict[str, Any] = sent.json
    return answer


def stored(scene: Scene, message: sdk.HTTPMessage, **headers: str) -> dict[str, Any]:
    """The message that became of it."""
    return scene.message(posted(scene, message, **headers)["id"])


@pytest.mark.parametrize("make", [sdk.to_binary_event, sdk.to_structured_event])
def test_what_the_sdk_makes_is_taken_attribute_by_attribute(scene: Scene, make: Callable[[Any], Any]) -> None:
    shown = stored(scene, make(event()), traceparent=OTHER_TRACE)
    assert (shown["source"], shown["messageType"]) == (ATTRIBUTES["source"], ATTRIBUTES["type"])
    assert shown["payload"] == DATA
    assert (shown["correlationId"], shown["orderingKey"]) == ("c-1", "käse 1")
    assert shown["expiresAt"] == "2099-01-01T00:00:00.000Z"
    kept = {name: ATTRIBUTES[name] for name in ("subject", "dataschema", "dataref", "traceparent")}
    assert shown["headers"].items() >= kept.items()


@pytest.mark.parametrize("make", [conversion.to_binary, conversion.to_structured])
def test_what_the_sdks_older_interface_makes_is_taken(scene: Scene, make: Callable[[Any], Any]) -> None:
    made = OlderEvent({"source": "/shop", "type": "order.placed", "subject": "a b"}, DATA)
    headers, body = make(made)
    shown = stored(scene, sdk.HTTPMessage(headers=dict(headers), body=body))
    assert (shown["payload"], shown["headers"]["subject"]) == (DATA, "a b")


def test_a_batch_of_the_sdks_events_is_taken_and_each_keeps_its_trace(running: Scene) -> None:
    desk = running.service("desk")
    running.route(destinations=["desk"])
    traces = {"a": TRACE, "b": OTHER_TRACE}
    written = [sdk.to_structured_event(event(id=id_, traceparent=trace)).body for id_, trace in traces.items()]
    batch = sdk.HTTPMessage({"Content-Type": "application/cloudevents-batch+json"}, b"[" + b",".join(written) + b"]")
    answered = posted(running, batch)
    for item in answered["items"]:
        running.ended(item["id"])
    assert {hit.headers["ce-id"]: hit.headers["traceparent"] for hit in desk.hits} == traces


@pytest.mark.parametrize("form", ["binary", "structured"])
def test_the_sdk_reads_what_goes_out_and_its_signature_holds(running: Scene, form: str) -> None:
    desk = running.service("desk", delivery={"format": form, "signingSecret": SECRET})
    running.route(destinations=["desk"])
    running.ended(posted(running, sdk.to_binary_event(event()), traceparent=OTHER_TRACE)["id"])
    (hit,) = desk.hits
    standardwebhooks.Webhook(SECRET).verify(hit.body, hit.headers)
    read = sdk.from_http_event(sdk.HTTPMessage(headers=hit.headers, body=hit.body))
    assert (read.get_id(), read.get_source(), read.get_type()) == ("order-1", ATTRIBUTES["source"], "order.placed")
    assert read.get_data() == DATA
    assert read.get_time() is not None
    wanted = ("correlationid", "partitionkey", "traceparent", "dataref")
    assert {name: read.get_extension(name) for name in wanted} == {name: ATTRIBUTES[name] for name in wanted}
    assert read.get_extension("expirytime") == "2099-01-01T00:00:00.000Z"
    assert hit.headers["traceparent"] == TRACE  # the event's own goes before that of the request it came by
