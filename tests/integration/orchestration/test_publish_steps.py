"""Messages that steps publish."""

from __future__ import annotations

from typing import Any

import pytest

from esb_workers.registry.catalogue import MessageTypes, TypeValues
from tests.support.workflows import Bench


def test_a_published_message_is_accepted_once_however_often_its_step_is_tried(bench: Bench) -> None:
    config = {"messageType": "order.${kind}", "payload": {"n": "${n}"}, "headers": {"h": "${n}"}, "orderingKey": "k"}
    id_ = bench.start(
        bench.define([{"id": "p", "type": "publish", "config": config}], name="orders"), {"kind": "made", "n": 1}
    )
    (claim,) = bench.claim()
    published = bench.messages.publish

    def dies_after(message: Any) -> str:
        published(message)
        raise KeyboardInterrupt

    bench.messages.publish = dies_after  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.runner.run(claim.id, claim.attempt)
    bench.messages.publish = published  # type: ignore[method-assign]
    bench.lose_leases()
    bench.settle()
    done = bench.execution(id_)
    assert (done["status"], bench.events(id_)[-2][2]["output"]) == ("completed", {"messageId": f"{id_}:p"})
    rows = bench.query("select external_id, source, type, payload, headers, correlation_id, ordering_key from message")
    assert rows == [(f"{id_}:p", "orders", "order.made", '{"n":1}', '{"h":"1"}', "corr-1", "k")]
    assert bench.query("select state from job where pool = 1") == [("r",)]


def test_what_a_step_publishes_is_held_to_its_types_schema(bench: Bench) -> None:
    types, orders = MessageTypes(bench.database), {"type": "object", "required": ["total"]}
    values = TypeValues("order.made", "warn", "none", None, None, {}, orders)
    made = types.register(values, by="operator").type
    config = {"messageType": "order.made", "payload": {"n": 1}}
    assert bench.run([{"id": "p", "type": "publish", "config": config}])["status"] == "completed"
    assert bench.query("select type, version, faults->0->>'path' from message_warning") == [
        ("order.made", 1, "payload")
    ]
    types.change(made.id, lambda _: values._replace(mode="enforce"), by="operator")
    failed = bench.run([{"id": "p", "type": "publish", "config": config}])
    assert (failed["status"], failed["error"]["class"]) == ("failed", "ValidationError")
    assert "'total' is a required property" in failed["error"]["message"]
    assert bench.query("select count(*) from message") == [(1,)]


def test_what_was_published_before_its_schema_became_strict_is_no_failure(bench: Bench) -> None:
    config = {"messageType": "order.made", "payload": {"n": 1}}
    id_ = bench.start(bench.define([{"id": "p", "type": "publish", "config": config}], name="orders"), {})
    (claim,) = bench.claim()
    published = bench.messages.publish

    def dies_after(message: Any) -> str:
        published(message)
        raise KeyboardInterrupt

    bench.messages.publish = dies_after  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.runner.run(claim.id, claim.attempt)
    strict = TypeValues("order.made", "enforce", "none", None, None, {}, False)
    MessageTypes(bench.database).register(strict, by="operator")
    bench.messages.publish = published  # type: ignore[method-assign]
    bench.lose_leases()
    bench.settle()
    assert bench.execution(id_)["status"] == "completed"
