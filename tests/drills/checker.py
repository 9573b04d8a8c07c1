"""Judges a history by the invariants that hold whatever was broken. Pure.

I1  nothing lost: what was accepted arrives and comes to its end; what is unknown exists once or not at all
I2  nothing doubled in effect: a message arrives under one delivery id; a repeat needs an attempt that was lost or failed
I3  the log of attempts is complete: no request without an attempt on record, one outcome for each
I4  order per key: first arrivals come in the order of acceptance
I5  fencing: the newest attempt, and only that, ended a delivery
I7  the API answers: no 5xx but a clean 503, and never later than the limit
I9  states: each message is in exactly one place, and what one table says no other denies

I6 (nothing leaks) and I8 (the healthy are not held up) are measured by the drills that are about them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.drills.history import FAILED, OK, Arrival, Delivery, History, Sent

DELIVERED: Final = "delivered"
#: An answer of the API that takes longer counts as a hang, seconds.
HANG: Final = 5.0
_SHOWN: Final = 3


@dataclass(frozen=True)
class Violation:
    """A broken invariant."""

    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


@dataclass(frozen=True)
class Expected:
    """What a drill's own nature allows. `endings`: another end than `delivered`, by number."""

    endings: Mapping[int, str] = field(default_factory=dict)
    hang: float = HANG
    statuses: frozenset[int] = frozenset()  # of the API, besides 2xx, 4xx and 503


def check(history: History, expected: Expected | None = None) -> list[Violation]:
    """All violations, few of each kind."""
    expected = expected or Expected()
    found: list[Violation] = []
    for invariant, judge in _JUDGES.items():
        texts = list(judge(history, expected))
        found += [Violation(invariant, text) for text in texts[:_SHOWN]]
        if len(texts) > _SHOWN:
            found.append(Violation(invariant, f"… and {len(texts) - _SHOWN} more"))
    return found


def sent_twice(history: History) -> int:
    """How many requests were repeats of one that had been sent before."""
    return len(history.arrivals) - len({a.delivery for a in history.arrivals})


# --- I1 ------------------------------------------------------------------------------------------------------


def _lost(history: History, expected: Expected) -> Iterator[str]:
    arrived = {a.n for a in history.arrivals if 200 <= a.status < 300}
    ended = _endings(history)
    for sent in history.sent:
        wanted = expected.endings.get(sent.n, DELIVERED)
        if sent.outcome == OK:
            if wanted == DELIVERED and sent.n not in arrived:
                yield f"message {sent.n} was accepted and never arrived"
            if wanted not in ended.get(sent.n, ()):
                yield f"message {sent.n} should end as {wanted}, the database says {sorted(ended.get(sent.n, ())) or 'nothing'}"
    yield from _unexpected(history)
    if history.ledger.open:
        yield f"{len(history.ledger.open)} jobs are not finished"


def _unexpected(history: History) -> Iterator[str]:
    known = {sent.n: sent.outcome for sent in history.sent}
    for n in sorted({a.n for a in history.arrivals}):
        if n not in known:
            yield f"message {n} arrived and was never sent"
        elif known[n] == FAILED:
            yield f"message {n} arrived although it was refused"


def _endings(history: History) -> dict[int, set[str]]:
    ended: dict[int, set[str]] = defaultdict(set)
    for delivery in history.ledger.deliveries:
        ended[delivery.n].add(delivery.status)
    for message, status in history.ledger.ends.items():
        ended[history.ledger.messages[message]].add(status)
    return ended


# --- I2 ------------------------------------------------------------------------------------------------------


def _doubled(history: History, expected: Expected) -> Iterator[str]:
    ids: dict[int, set[str]] = defaultdict(set)
    for arrival in history.arrivals:
        ids[arrival.n].add(arrival.delivery)
    for n, deliveries in sorted(ids.items()):
        if len(deliveries) > 1:
            yield f"message {n} arrived under {len(deliveries)} delivery ids: a doubled effect"
    for n, count in sorted(Counter(history.ledger.messages.values()).items()):
        if count > 1:
            yield f"message {n} was accepted {count} times under one messageId"
    excused = Counter(a.delivery for a in history.ledger.attempts if a.outcome != "ok")
    excused.update(_resent(history))
    for delivery, hits in _hits(history.arrivals).items():
        if len(hits) - 1 > excused[delivery]:
            yield f"message {hits[0].n} was sent {len(hits)} times with {excused[delivery]} attempts failed or lost"


def _resent(history: History) -> Iterator[str]:
    """Deliveries, once for each attempt that is on record as having sent its request twice."""
    ended = {(d.id, d.attempts) for d in history.ledger.deliveries if d.resent}
    yield from (
        delivery for delivery, _ in ended | {(a.delivery, a.number) for a in history.ledger.attempts if a.resent}
    )


def _hits(arrivals: Iterable[Arrival]) -> dict[str, list[Arrival]]:
    by_delivery: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        by_delivery[arrival.delivery].append(arrival)
    return by_delivery


# --- I3, I5 --------------------------------------------------------------------------------------------------


def _unlogged(history: History, expected: Expected) -> Iterator[str]:
    ended = {d.id: d for d in history.ledger.deliveries}
    resent = Counter(_resent(history))
    for delivery, hits in _hits(history.arrivals).items():
        row = ended.get(delivery)
        if row is not None and len(hits) > row.attempts + resent[delivery]:
            yield f"message {row.n}: {len(hits)} requests, {row.attempts} attempts"
    for attempt in history.ledger.attempts:
        if attempt.outcome not in ("ok", "failed", "unknown", "superseded"):
            yield f"attempt {attempt.number} of {attempt.delivery} ended as {attempt.outcome!r}"


def _unfenced(history: History, expected: Expected) -> Iterator[str]:
    numbers: dict[str, list[int]] = defaultdict(list)
    for attempt in history.ledger.attempts:
        numbers[attempt.delivery].append(attempt.number)
    for delivery in history.ledger.deliveries:
        mine = numbers[delivery.id]
        if len(mine) != len(set(mine)):
            yield f"message {delivery.n}: an attempt has two outcomes"
        if mine and max(mine) > delivery.attempts:
            yield f"message {delivery.n}: attempt {max(mine)} is on record, attempt {delivery.attempts} ended the delivery"
        if delivery.last_number is not None and delivery.last_number != delivery.attempts:
            yield f"message {delivery.n}: ended by attempt {delivery.last_number}, the newest was {delivery.attempts}"


# --- I4 ------------------------------------------------------------------------------------------------------


def _disordered(history: History, expected: Expected) -> Iterator[str]:
    first: dict[int, int] = {}
    for place, arrival in enumerate(history.arrivals):
        first.setdefault(arrival.n, place)
    keys: dict[str, list[Sent]] = defaultdict(list)
    for sent in history.sent:
        if sent.key is not None and sent.outcome != FAILED:
            keys[sent.key].append(sent)
    for key, messages in sorted(keys.items()):
        yield from _overtaken(key, messages, first)


def _overtaken(key: str, messages: list[Sent], first: Mapping[int, int]) -> Iterator[str]:
    """Whoever was answered before another was first sent comes before it. What is unknown may come any time after."""
    answered = sorted((m for m in messages if m.outcome == OK and m.n in first), key=lambda m: m.ended)
    latest: Sent | None = None
    taken = 0
    for message in sorted((m for m in messages if m.n in first), key=lambda m: m.started):
        while taken < len(answered) and answered[taken].ended <= message.started:
            if latest is None or first[answered[taken].n] > first[latest.n]:
                latest = answered[taken]
            taken += 1
        if latest is not None and first[latest.n] > first[message.n]:
            yield f"key {key}: {message.n} arrived before {latest.n}, which had been accepted before it was sent"


# --- I7 ------------------------------------------------------------------------------------------------------


def _unclean(history: History, expected: Expected) -> Iterator[str]:
    for sent in history.sent:
        for number, each in enumerate(sent.tries, 1):
            took = each.ended - each.started
            if took > expected.hang:
                yield f"message {sent.n}, try {number}: the API took {took:.1f} s ({each.status})"
            if each.status is None or each.status < 500 or each.status in expected.statuses:
                continue
            if each.status != 503:
                yield f"message {sent.n}, try {number}: the API answered {each.status}"
            elif not each.retry_after:
                yield f"message {sent.n}, try {number}: a 503 without Retry-After"


# --- I9 ------------------------------------------------------------------------------------------------------


def _inconsistent(history: History, expected: Expected) -> Iterator[str]:
    ledger = history.ledger
    by_message: dict[int, list[Delivery]] = defaultdict(list)
    for delivery in ledger.deliveries:
        by_message[delivery.n].append(delivery)
    opened = Counter(ledger.messages[m] for m in ledger.open.values())
    ended = Counter(ledger.messages[m] for m in ledger.ends)
    for n in sorted(set(ledger.messages.values())):
        places = sum(bool(x) for x in (by_message[n], opened[n], ended[n]))
        if places != 1:
            yield f"message {n} is in {places} places: {len(by_message[n])} deliveries, {opened[n]} jobs, {ended[n]} ends"
        if len(by_message[n]) > 1:
            yield f"message {n} has {len(by_message[n])} deliveries to one destination"
    for delivery in ledger.deliveries:
        if delivery.id in ledger.open:
            yield f"message {delivery.n}: its delivery has ended and is open"
        if (delivery.status == "dead") != (delivery.id in ledger.dead_letters):
            yield f"message {delivery.n}: {delivery.status}, and among the dead letters: {delivery.id in ledger.dead_letters}"


_JUDGES: Final[Mapping[str, Callable[[History, Expected], Iterator[str]]]] = {
    "I1 lost": _lost,
    "I2 doubled": _doubled,
    "I3 attempts": _unlogged,
    "I4 order": _disordered,
    "I5 fencing": _unfenced,
    "I7 API": _unclean,
    "I9 states": _inconsistent,
}
