"""The calls that `enrich` makes: chosen, guarded, signed and timed like any other, and remembered for a while."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import orjson

from esb_workers.registry.choice import Chooser, Chosen, NotNow
from esb_workers.registry.instances import DEFAULT_TIMEOUT, Directory, Instance
from esb_workers.registry.limits import Limits
from esb_workers.registry.retries import Answered, nearest
from esb_workers.registry.selection import Destination
from esb_workers.routing.transform import Question, Unanswered
from esb_workers.store.messages import StoredMessage
from esb_workers.transport import signing
from esb_workers.transport.adapter import PreparedRequest, Response
from esb_workers.transport.errors import CallFailed
from esb_workers.transport.transports import Transports, scheme_of

USER_AGENT: Final = "python-esb"
#: Largest answer, and largest that is remembered, bytes; how many are.
MAX_ANSWER: Final = 1 << 20
MAX_REMEMBERED: Final = 1 << 16
MAX_ANSWERS: Final = 1000
_SEALED: Final = frozenset({"idempotency-key", "webhook-id", "webhook-timestamp", "webhook-signature"})


class Memory:
    """Answers by question, each for its time, the latest used kept. Safe for threads; times are monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, question: bytes) -> bytes | None:
        """The answer, as long as it is good."""
        with self._lock:
            until, answer = self._answers.get(question, (0.0, b""))
            if until <= self._clock():
                return None
            self._answers.move_to_end(question)
            return answer

    def keep(self, question: bytes, answer: bytes, seconds: float) -> None:
        """Remember an answer that is not too large."""
        if seconds <= 0 or len(answer) > MAX_REMEMBERED:
            return
        with self._lock:
            self._answers[question] = self._clock() + seconds, answer
            self._answers.move_to_end(question)
            while len(self._answers) > MAX_ANSWERS:
                self._answers.popitem(last=False)


class Asker:
    """Asks services. One a process; safe for threads."""

    def __init__(self, directory: Directory, chooser: Chooser, transports: Transports, limits: Limits) -> None:
        self._directory, self._chooser, self._transports, self._limits = directory, chooser, transports, limits
        self._memory = Memory()

    def ask(self, question: Question, message: StoredMessage, key: str) -> Any:
        """The answer as JSON; `key` is the same whenever this is asked again. Raises Unanswered."""
        asked = _asked(question)
        if question.cache_seconds and (known := self._memory.get(asked)) is not None:
            return orjson.loads(known)
        destination = Destination.parse(question.service)
        with self._limits.place(destination.name, question.timeout) as refusal:
            chosen = refusal or self._chooser.choose(destination, question.timeout)
            if isinstance(chosen, NotNow):
                told = f"{question.service}: {chosen.reason}"
                raise Unanswered(told, error_class="ServiceUnavailable", held_ms=chosen.retry_ms, reason=chosen.reason)
            answer = self._attempt(question, message, key, chosen)
        self._memory.keep(asked, answer, question.cache_seconds)
        try:
            return orjson.loads(answer) if answer.strip() else None
        except orjson.JSONDecodeError:
            raise Unanswered(f"{question.service} did not answer JSON", error_class="ValidationError") from None

    def _attempt(self, question: Question, message: StoredMessage, key: str, chosen: Chosen) -> bytes:
        instance = chosen.instance
        try:
            response = self._send(question, message, key, instance)
        except CallFailed as error:
            if error.transient or chosen.probe:
                self._chooser.report(chosen, ok=False)
            told = f"{instance.name}: {error.detail}"
            raise Unanswered(told, error_class=error.error_class, transient=error.transient) from error
        answered = Answered(response.status_code, response.headers.get("Retry-After"))
        self._chooser.report(chosen, ok=not answered.counts_against_circuit)
        if not answered.ok:
            told = f"{instance.name} answered {response.status_code}"
            raise Unanswered(told, error_class=answered.error_class, transient=answered.transient)
        if getattr(response.raw, "truncated", False):
            raise Unanswered(f"{instance.name}: the answer is over {MAX_ANSWER} bytes", error_class="AnswerTooLarge")
        return bytes(response.content)

    def _send(self, question: Question, message: StoredMessage, key: str, instance: Instance) -> Response:
        transport = self._transports.get(scheme_of(instance.endpoint))
        if transport is None:
            raise Unanswered(f"{instance.name}: nothing here speaks its scheme", error_class="ServiceUnavailable")
        request = PreparedRequest()
        request.method = question.method
        request.url = instance.url(question.path)
        request.body = orjson.dumps(question.payload) if question.has_payload else b""
        request.headers = _headers(request.body, message, key, instance)  # type: ignore[assignment]
        timeout = nearest(question.timeout, instance.timeout, default=DEFAULT_TIMEOUT)
        return transport.send(request, timeout=timeout / 1000, max_body=MAX_ANSWER)


def _headers(body: bytes, message: StoredMessage, key: str, instance: Instance) -> dict[str, str]:
    """Ours, but for what the service's own replace; the sealed ones stay ours."""
    ours = {"User-Agent": USER_AGENT, "Accept": "application/json", "X-Correlation-ID": message.correlation_id}
    if body:
        ours["Content-Type"] = "application/json"
    if message.traceparent:
        ours["traceparent"] = message.traceparent
    merged = {name.lower(): (name, value) for name, value in ours.items()}
    merged |= {name.lower(): (name, value) for name, value in instance.headers if name.lower() not in _SEALED}
    now = time.time()
    return dict([*merged.values(), ("Idempotency-Key", key), *signing.headers(instance.keys(now), key, int(now), body)])


def _asked(question: Question) -> bytes:
    return orjson.dumps([question.service, question.method, question.path, question.has_payload, question.payload])
