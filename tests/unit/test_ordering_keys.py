"""Ordering keys that expressions make."""

from __future__ import annotations

from esb_workers.routing.matching import MAX_KEY, ordering_key, short_key
from esb_workers.routing.route import compile_route


def test_a_key_too_long_for_an_index_is_kept_as_its_hash_and_still_tells_keys_apart() -> None:
    route = compile_route({"name": "r", "pattern": "#", "destinations": ["a"], "orderingKey": "${payload}"})
    long = ["x" * 10_000 + last for last in "ab"]
    keys = [ordering_key(route, route.destinations[0], {}, {"payload": payload}) for payload in long]
    assert len(set(keys)) == 2 and all(key is not None and len(key) <= MAX_KEY for key in keys)
    assert short_key("k") == "k"
