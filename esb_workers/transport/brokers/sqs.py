"""Amazon SQS through kombu; needs the extra `python-esb[sqs]`, which brings boto3 and pycurl.

The host is judged before each attempt, not while it connects: boto3 connects by itself.
"""

from __future__ import annotations

import importlib.util
import re
import time
from typing import Any, Final

import kombu

from esb_workers.transport.adapter import PreparedRequest, Response, taken
from esb_workers.transport.address import AddressGuard
from esb_workers.transport.brokers import address as addresses
from esb_workers.transport.brokers import letter as letters
from esb_workers.transport.brokers.address import Address
from esb_workers.transport.brokers.base import Dialer
from esb_workers.transport.brokers.letter import Letter
from esb_workers.transport.errors import BrokerRefused, ConnectionLost, RequestRefused

MISSING: Final = "sqs:// needs the extra python-esb[sqs], installed where the API and the workers run"
_HOST: Final = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?")


def installed() -> bool:
    """Whether what kombu needs for SQS is there."""
    return all(importlib.util.find_spec(name) is not None for name in ("boto3", "pycurl"))


class SqsTransport:
    """`sqs://`: the queue's own URL with this scheme. Each attempt makes a connection of its own."""

    def __init__(self, guard: AddressGuard) -> None:
        self._dialer = Dialer(guard)

    @classmethod
    def check_endpoint(cls, endpoint: str) -> None:
        """Raises ValueError unless `endpoint` is a queue's URL, and the extra is there."""
        if not installed():
            raise ValueError(MISSING)
        try:
            address = addresses.parse(endpoint)
        except RequestRefused as error:
            raise ValueError(error.detail) from None
        if not _HOST.fullmatch(address.host):
            raise ValueError("the host must be sqs.REGION.amazonaws.com")

    def send(self, request: PreparedRequest, *, timeout: float = 10.0, max_body: int = 0) -> Response:
        """Send the request as a message. Raises a CallFailed."""
        started = time.monotonic()
        address, letter = addresses.parse(request.url or ""), letters.of(request)
        if not installed():
            raise RequestRefused(MISSING)
        self._dialer.judge(address, started + timeout)
        try:
            _publish(address, letter, timeout)
        except Exception as error:  # boto's errors are made at run time, one class for each service
            if hasattr(error, "response"):
                code = str(error.response.get("Error", {}).get("Code"))
                raise BrokerRefused(f"{address.host}: {code[:100]}") from error
            raise ConnectionLost(f"{address.host}: {type(error).__name__}") from error
        return taken(time.monotonic() - started)

    def close(self) -> None:
        """Nothing is kept."""


def _publish(address: Address, letter: Letter, seconds: float) -> None:
    queue = address.queue or ""
    properties = letter.properties() | ({"MessageDeduplicationId": letter.id} if queue.endswith(".fifo") else {})
    with kombu.Connection("sqs://", transport_options=_options(address, seconds)) as connection:
        producer = connection.Producer(auto_declare=False)
        producer.publish(
            letter.body,
            routing_key=queue,
            content_type=letter.content_type,
            content_encoding="utf-8",
            headers=dict(letter.headers),
            **properties,
        )


def _options(address: Address, seconds: float) -> dict[str, Any]:
    match = _HOST.fullmatch(address.host)
    queue: dict[str, Any] = {"url": f"https://{address.host}/{address.space}/{address.queue}"}
    if address.user:
        queue |= {"access_key_id": address.user, "secret_access_key": address.password}
    # Half the time to connect, half to be answered, and no second try: retries are the bus's.
    times = {"connect_timeout": seconds / 2, "read_timeout": seconds / 2, "retries": {"total_max_attempts": 1}}
    return {
        "region": match[1] if match else None,
        "predefined_queues": {address.queue: queue},
        "client-config": times,
    }
