"""Senders: concurrent threads that send uniquely numbered messages and write down what they know of each."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.drills.history import FAILED, OK, UNKNOWN, Sent, Try

#: Longer than any answer may take, so that a hang is seen as one, seconds.
PATIENCE = 20.0
_AGAIN = 0.25  # seconds before a message that is unknown is sent again


@dataclass(frozen=True)
class Plan:
    """What to send. `kinds` are the last words of the message types, taken in turn.

    Each sender has keys of its own, so the order of acceptance within a key is the order of its sending. Odd
    messages that are unknown are sent again under their messageId until the answer is clear; even ones stay unknown.
    """

    senders: int = 4
    per_second: float = 80.0
    keyed: bool = True
    kinds: tuple[str, ...] = ("a",)
    insist: bool = True
    api_keys: tuple[str, ...] = ()  # of clients, in turn by sender; default: the operator's
    extra: Callable[[int], dict[str, Any]] = field(default=lambda n: {})  # further fields of message n


class Workload:
    """`with Workload(port, key, plan, numbers) as load: …` sends until the block ends (or `stop`)."""

    def __init__(self, port: int, admin_key: str, plan: Plan, numbers: Iterator[int]) -> None:
        self.sent: list[Sent] = []
        self.plan = plan
        self._port = port
        self._key = admin_key
        self._numbers = numbers
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(i,), daemon=True) for i in range(plan.senders)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no new message; what is being sent is brought to its outcome."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE * 2)
        assert not any(thread.is_alive() for thread in self._threads), "a sender hangs"

    @property
    def accepted(self) -> int:
        return sum(sent.outcome == OK for sent in list(self.sent))

    def _send(self, sender: int) -> None:
        door = _Door(
            self._port, self.plan.api_keys[sender % len(self.plan.api_keys)] if self.plan.api_keys else self._key
        )
        pause = self.plan.senders / self.plan.per_second
        due = time.monotonic() + pause * sender / self.plan.senders
        for turn in itertools.count():
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                break
            # Not catching up after a fault: a burst would hide what the fault itself does.
            due = max(due + pause, time.monotonic())
            with self._lock:
                n = next(self._numbers)
            key = f"key-{sender}-{turn % 2}" if self.plan.keyed and turn % 3 else None
            self.sent.append(self._one(door, n, key))
        door.close()

    def _one(self, door: _Door, n: int, key: str | None) -> Sent:
        body = self._body(n, key)
        tries = [door.knock(body)]
        insist = self.plan.insist and n % 2 == 1
        while insist and _outcome(tries[-1]) == UNKNOWN and len(tries) < 60 and not self._hopeless(tries):
            time.sleep(_AGAIN)
            tries.append(door.knock(body))
        last = _outcome(tries[-1])
        if last == FAILED and len(tries) > 1:
            last = UNKNOWN  # an earlier try may have been taken
        return Sent(n, key, last, tuple(tries))

    def _hopeless(self, tries: list[Try]) -> bool:
        return self._stopping.is_set() and time.monotonic() - tries[0].started > PATIENCE

    def _body(self, n: int, key: str | None) -> bytes:
        kind = self.plan.kinds[n % len(self.plan.kinds)]
        message: dict[str, Any] = {
            "source": "drill", "messageType": f"drill.{kind}", "messageId": f"drill-{n}", "payload": {"n": n, "kind": kind},
        }  # fmt: skip
        if key is not None:
            message["orderingKey"] = f"{key}-{kind}"
        return json.dumps(message | self.plan.extra(n)).encode()


def _outcome(each: Try) -> str:
    if each.status is not None and 200 <= each.status < 300:
        return OK
    if each.status is not None and 400 <= each.status < 500:
        return FAILED
    return UNKNOWN  # also 503: the database may have been lost after the commit


class _Door:
    """A kept-alive connection to the API."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._headers = {"X-API-Key": key, "Content-Type": "application/json"}
        self._connection: http.client.HTTPConnection | None = None

    def knock(self, body: bytes) -> Try:
        started = time.monotonic()
        status, retry_after = None, False
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
            self._connection.request("POST", "/routing/send", body, self._headers)
            answer = self._connection.getresponse()
            answer.read()
            status, retry_after = answer.status, answer.getheader("Retry-After") is not None
        except (OSError, http.client.HTTPException):
            self.close()
        return Try(started, time.monotonic(), status, retry_after)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
