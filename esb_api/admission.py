"""Whether a client may have what it asks for: its grant, its limits on size, its quota."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from esb_api.call import Call
from esb_workers.errors import Forbidden, QuotaExceeded, TooLarge
from esb_workers.registry.clients import Client
from esb_workers.registry.quotas import Taken


def check_grant(client: Client | None, message_type: str, payload: str) -> None:
    """Raises Forbidden (`message_type_forbidden`, `service_forbidden`), TooLarge. The operator may anything.

    That some destinations lie outside the grant is seen when the message is routed.
    """
    if client is None:
        return
    if not client.allowed_services:
        raise Forbidden("This client may use no service.", code="service_forbidden")
    if not client.may_send(message_type):
        raise Forbidden(f"This client may not send messages of type {message_type}.", code="message_type_forbidden")
    limit = client.max_payload_bytes
    # A character is at most four bytes: most payloads need not be encoded to be judged.
    if limit is not None and len(payload) * 4 > limit and len(payload.encode()) > limit:
        raise TooLarge(
            f"The payload is over this client's limit of {limit} bytes.", code="payload_too_large", limit=limit
        )


class Places:
    """Places of the quota that one request has taken."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._taken: Taken | None = None

    def take(self, places: int) -> None:
        """Take `places`, all or none. Raises QuotaExceeded."""
        client = self._call.principal.client
        if client is None or not client.limits or not places:
            return
        try:
            self._taken = self._call.api.quotas.take(client.id, client.limits, places)
        except QuotaExceeded as error:
            self._call.limits = error.extra.pop("rate_limit", None)
            raise
        if self._taken is not None:
            self._call.limits = self._taken.nearest

    def give_back(self, places: int | None = None) -> None:
        """Give back `places`, or all."""
        taken, self._taken = self._taken, None
        if taken is not None:
            self._call.limits = None  # what is left has changed: whoever answers looks again
            self._call.api.quotas.give_back(taken if places is None else replace(taken, places=places))


@contextmanager
def places_of(call: Call) -> Iterator[Places]:
    """Places that are given back if the block ends with an exception. Raises Overloaded before it begins."""
    places = Places(call)
    with call.api.load.place():
        try:
            yield places
        except BaseException:
            places.give_back()
            raise
