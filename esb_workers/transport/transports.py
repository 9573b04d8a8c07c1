"""Ways out by the scheme of a service's endpoint: plug-ins of the group `esb.transports`, named by their scheme.

A transport speaks the types of `requests`: it takes a `PreparedRequest` and answers a `Response`. Where what it
reaches has no statuses, it answers 202 for "taken", and raises a CallFailed for everything else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Protocol

from esb_workers import plugins
from esb_workers.transport.adapter import PreparedRequest, Response
from esb_workers.transport.address import AddressGuard

GROUP: Final = "esb.transports"
#: The endpoint of a service that fetches its deliveries: no transport reaches it.
PULL: Final = "pull:"
PULL_SCHEME: Final = "pull"
#: Mirrors `setup.cfg`, for a checkout that is not installed.
BUILTIN: Final = {
    "http": "esb_workers.transport.web:WebTransport",
    "https": "esb_workers.transport.web:WebTransport",
    "amqp": "esb_workers.transport.brokers.amqp:AmqpTransport",
    "amqps": "esb_workers.transport.brokers.amqp:AmqpTransport",
    "redis": "esb_workers.transport.brokers.redis:RedisTransport",
    "rediss": "esb_workers.transport.brokers.redis:RedisTransport",
    "sqs": "esb_workers.transport.brokers.sqs:SqsTransport",
}


class Transport(Protocol):
    """What an entry point names: a class whose instances make attempts. One a process; safe for threads."""

    def __init__(self, guard: AddressGuard) -> None:
        """Connect to nothing yet. What is connected to later must pass the guard."""
        ...

    @classmethod
    def check_endpoint(cls, endpoint: str) -> None:
        """Raises ValueError, which never quotes a password, for an endpoint that this transport cannot reach."""
        ...

    def send(self, request: PreparedRequest, *, timeout: float, max_body: int) -> Response:
        """One attempt, at most `timeout` seconds long in all; of an answer's body, `max_body` bytes are read.

        Raises a CallFailed.
        """
        ...

    def close(self) -> None:
        """Close the connections that are kept."""
        ...


@lru_cache(maxsize=1)
def known() -> dict[str, type[Transport]]:
    """Every transport there is, by scheme; entry points are read once, at first use."""
    return plugins.load(GROUP, BUILTIN)


def scheme_of(endpoint: str) -> str:
    """`amqp` of `amqp://…`."""
    return endpoint.partition(":")[0].lower()


class Transports:
    """The transports of one process. Schemes of one class share an instance, and so its connections."""

    def __init__(self, guard: AddressGuard) -> None:
        made = {cls: cls(guard) for cls in dict.fromkeys(known().values())}
        self._all = tuple(made.values())
        #: By scheme; None where no plug-in knows it.
        self.get = {scheme: made[cls] for scheme, cls in known().items()}.get

    def close(self) -> None:
        """Close the connections of all."""
        for transport in self._all:
            transport.close()
