"""`python -m bench matching`: what it costs to find the routes of a message, by how many routes there are.

In process, without a database: the table of a routing worker, with routes as people write them, three of a hundred of
which take the message whatever their number. Then what it costs to put one more route in force, and what five
transformations add. Times in microseconds unless named otherwise.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from esb_workers.routing import matching
from esb_workers.routing.route import Route, compile_route
from esb_workers.routing.table import RoutingTable

SIZES = (10, 100, 1_000, 10_000, 100_000)
REGIONS = ("eu", "us", "ap", "af")
NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)

Body = dict[str, Any]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench matching", description=__doc__)
    parser.add_argument("--messages", type=int, default=5_000, help="messages a size (default %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of routes (default %(default)s)")
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {"matching": {}, "change": {}, "load_seconds": {}}
    for size in options.sizes:
        began = time.perf_counter()
        table = RoutingTable(make(number) for number in range(size))
        report["load_seconds"][size] = round(time.perf_counter() - began, 2)
        gc.collect()
        gc.freeze()
        report["matching"][size] = match(table, size, options.messages)
        report["change"][size] = change(table, size)
        print(size, json.dumps({key: report[key][size] for key in report}), flush=True)
    report["transforming"] = transform(options.messages)
    print(json.dumps(report, indent=1))


def make(number: int) -> Route:
    """The routes of many teams: most by their own id or topic, some by text that begins so, few by anything else."""
    return compile_route(route_body(number), route_id=f"{number:08}")


def route_body(number: int) -> Body:
    body: Body = {"name": f"r{number}", "pattern": "order.*", "destinations": ["billing"], "priority": number % 7}
    match number % 10:
        case 0:
            body["pattern"] = f"team-{number}.#"
        case 1 | 2:
            body["conditions"] = {"payload.account": [{"prefix": f"a{number}-"}], "header.region": "eu"}
        case 3:
            body["conditions"] = {
                "payload": {"sku": [f"s{number}"], "total": [{"numeric": [">", 10]}]},
                "$or": [{"header.region": ["eu"]}, {"payload.vip": [True]}],
            }
        case 4:
            body["filter"] = f"payload.customer == 'c-{number}' && payload.total > 10.0"
        case _:
            body["conditions"] = {"payload.customer": f"c-{number}", "header.region": REGIONS[number % 4]}
    return body


def message(number: int) -> Body:
    """A message that a few routes take, whatever the number of routes."""
    return {
        "source": "shop",
        "messageType": "order.placed",
        "correlationId": "c",
        "headers": {"region": REGIONS[number % 4], "tenant": "t"},
        "payload": {
            "customer": f"c-{number}",
            "account": f"a{number - number % 10 + 1}-7",
            "sku": f"s{number - number % 10 + 3}",
            "total": 99.5,
            "lines": [{"sku": "x", "n": 2}, {"sku": "y", "n": 1}],
        },
    }


def match(table: RoutingTable, size: int, count: int) -> dict[str, float]:
    chance = random.Random(7)
    messages = [message(chance.randrange(size)) for _ in range(count)]
    taken = sum(len(table.match(one, NOW)) for one in messages[:200]) / min(count, 200)
    return {**timed([lambda one=one: table.match(one, NOW) for one in messages]), "taken": round(taken, 2)}  # type: ignore[misc]


def change(table: RoutingTable, size: int) -> dict[str, float]:
    """To put a route in force that was written anew: compiled, taken out, put in; and the next message after it."""
    numbers = [random.Random(number).randrange(size) for number in range(300)]

    def one(number: int) -> None:
        table.put(make(number))
        table.match(message(number), NOW)

    return timed([lambda number=number: one(number) for number in numbers])  # type: ignore[misc]


def transform(count: int) -> dict[str, float]:
    steps = [
        {"type": "rename", "fields": {"customer": "buyer"}},
        {"type": "drop", "fields": ["account"]},
        {"type": "set", "fields": {"gross": "${payload.total * 1.25}"}},
        {"type": "default", "fields": {"currency": "EUR"}},
        {"type": "headers", "set": {"x-buyer": "${payload.buyer}"}},
    ]
    route = compile_route({**route_body(0), "transformation": steps})
    variables = matching.variables_of(message(1), NOW)
    return timed([lambda: matching.form(route, route.destinations[0], variables)] * count)


def timed(calls: list[Callable[[], Any]]) -> dict[str, float]:
    spent = []
    for call in calls:
        began = time.perf_counter_ns()
        call()
        spent.append((time.perf_counter_ns() - began) / 1000)
    spent.sort()
    return {
        "p50": round(statistics.median(spent), 1),
        "p99": round(spent[int(len(spent) * 0.99)], 1),
        "max": round(spent[-1], 1),
    }
