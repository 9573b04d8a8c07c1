"""The request of a delivery, built in full and by a letterhead: not a byte of difference."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.delivery import request as requesting
from esb_workers.delivery.plan import NO_PLAN, Plan
from esb_workers.delivery.prepare import Prepared
from esb_workers.expressions.templates import compile_template
from esb_workers.registry.circuit import Circuit
from esb_workers.registry.instances import Instance
from esb_workers.registry.selection import Destination
from esb_workers.store.ids import new_id
from esb_workers.store.jobs import Claim
from esb_workers.store.messages import StoredMessage
from esb_workers.transport import request as wire
from esb_workers.transport.errors import RequestRefused
from esb_workers.transport.letterhead import Letter

NOW = 1_790_000_000.7
MADE = datetime(2026, 1, 31, 8, 0, 0, 123456, tzinfo=UTC)
BILLING = Instance(
    id="s-1", name="billing", version="1.0.0", endpoint="http://127.0.0.1:9/api", scheme="http", weight=1, status="active",
    health="healthy", circuit=Circuit("closed", 0, 0.0), epoch=0, path="/in", method="POST", timeout=None, headers=(),
    format="binary", retry_policy=None, key=b"k" * 32, old_key=b"o" * 32, old_key_until=0.0,
)  # fmt: skip
MESSAGE = StoredMessage(
    new_id(), "c", None, "shop/orders", "order.created", "corr-1", None, 5, None, None, None, "{}", '{"n": 1}', MADE
)


def prepared(message: StoredMessage, headers: dict[str, str], plan: Plan = NO_PLAN, **cursor: Any) -> Prepared:
    claim = Claim(new_id(), 1, 1, 0, message.id, None, None, cursor or None, None, None, 0, MADE, 1)
    return Prepared(claim, Destination("billing"), "billing", message, message.payload, headers, plan)


def in_full(one: Prepared, instance: Instance) -> bytes:
    assert one.message is not None and one.payload is not None
    request = requesting.build(one, one.message, one.payload, instance, NOW)
    assert request.method and request.url and isinstance(request.body, bytes)
    return wire.head(request.method, wire.parse_url(request.url), request.headers.items(), request.body) + request.body


def by_letterhead(one: Prepared, instance: Instance) -> Letter | None:
    assert one.message is not None and one.payload is not None
    return requesting.letter(one, one.message, one.payload, instance, NOW)


def outcome(one: Prepared, instance: Instance) -> tuple[bytes | type, bytes | type | None]:
    """What both come to, errors included."""
    try:
        letter = by_letterhead(one, instance)
        short: bytes | type | None = None if letter is None else letter.head + letter.body
    except RequestRefused:
        short = RequestRefused
    try:
        return in_full(one, instance), short
    except RequestRefused:
        return RequestRefused, short


PLAIN = st.from_regex(r"[!#$&-~]{1,20}", fullmatch=True)
TEXT = PLAIN | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=10)
NAMES = st.from_regex(r"[A-Za-z-]{1,8}", fullmatch=True) | st.sampled_from(
    [
        "kind",
        "Dataref",
        "ce-x",
        "Host",
        "User-Agent",
        "Accept-Encoding",
        "content-type",
        "X-Correlation-ID",
        "a b",
        "x%s",
    ]
)
OWN = st.sampled_from(
    ["X-Own", "ce-id", "traceparent", "Content-Type", "webhook-id", "User-Agent", "kind", "Host", "x y"]
)
MESSAGES = st.builds(
    MESSAGE._replace,
    external_id=st.none() | TEXT, source=TEXT, type=TEXT, correlation_id=PLAIN | st.just("50% off") | st.just("a\r\nb: c"),
    ordering_key=st.none() | TEXT, expires_at=st.none() | st.just(MADE), reply_to=st.none(),
    traceparent=st.none() | st.just(f"00-{'a' * 32}-{'b' * 16}-01"), payload=st.sampled_from(['{"n": 1}', '"é"', "0"]),
)  # fmt: skip
INSTANCES = st.builds(
    lambda **changes: replace(BILLING, **changes),
    format=st.sampled_from(["binary", "payload", "structured"]), path=st.sampled_from([None, "/in", "a b/é%s", ""]),
    method=st.sampled_from(["POST", "PUT", "DELETE", "GET", "post"]), key=st.none() | st.just(b"k" * 32),
    old_key_until=st.sampled_from([0.0, NOW + 1]), endpoint=st.sampled_from(["http://127.0.0.1:9/api", "http://bücher.example"]),
    headers=st.lists(st.tuples(OWN, TEXT), max_size=3, unique_by=lambda pair: pair[0].lower()).map(tuple),
)  # fmt: skip
PLANS = st.sampled_from([NO_PLAN, Plan(method="PATCH"), Plan(path=compile_template("/of-the-route", "path"))])
CURSORS = st.sampled_from([{}, {"index": 3}, {"check": {"url": "https://blobs/1", "bytes": 5}}])


@given(MESSAGES, st.dictionaries(NAMES, TEXT, max_size=3), INSTANCES, PLANS, CURSORS)
def test_a_letterhead_makes_the_same_bytes_or_leaves_it_to_the_full_way(
    message: StoredMessage, headers: dict[str, str], instance: Instance, plan: Plan, cursor: dict[str, Any]
) -> None:
    full, short = outcome(prepared(message, headers, plan, **cursor), instance)
    assert short in (None, full)


@pytest.mark.parametrize(
    "headers", [{}, {"kind": "bench"}, {"kind": "two words", "über": "x"}, {"User-Agent": "shop/1"}]
)
@pytest.mark.parametrize("form", ["binary", "payload"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"external_id": "4711", "ordering_key": "k", "expires_at": MADE}, {"source": "the shop", "payload": '"é"'}],
)
def test_what_is_plain_needs_no_more_than_a_letterhead(
    changes: dict[str, Any], form: Any, headers: dict[str, str]
) -> None:
    instance = replace(BILLING, format=form, headers=(("X-Tenant", "100%"),))
    for _ in range(2):
        full, short = outcome(prepared(MESSAGE._replace(id=new_id(), **changes), headers), instance)
        assert full == short


def test_an_instance_that_has_changed_has_a_letterhead_of_its_own() -> None:
    one = prepared(MESSAGE, {})
    for changed in (
        BILLING,
        replace(BILLING, path="/elsewhere"),
        replace(BILLING, key=b"n" * 32),
        replace(BILLING, headers=(("a", "b"),)),
    ):
        full, short = outcome(one, changed)
        assert full == short
