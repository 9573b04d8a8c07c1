"""The first act: everything a delivery needs. What did not come with the claims is loaded in a few round trips."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from esb_workers.delivery.plan import NO_PLAN, Plan, RouteBook
from esb_workers.registry.instances import Directory
from esb_workers.registry.selection import Destination
from esb_workers.store import jobs, lanes, messages
from esb_workers.store.engine import Database
from esb_workers.store.jobs import Claim
from esb_workers.store.messages import StoredMessage

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class Prepared(NamedTuple):
    """A delivery ready to be tried. `message` is None when it is gone; payload and headers are what goes out."""

    claim: Claim
    destination: Destination
    service: str  # the destination as the route names it: `name` or `name@RANGE`
    message: StoredMessage | None = None
    payload: str | None = None
    headers: Mapping[str, str] = _NONE
    plan: Plan = NO_PLAN
    place: int | None = None  # the destination's place in its route
    others: tuple[Prepared, ...] = ()  # where it goes instead, in this order, when this destination would hold it

    @property
    def options(self) -> tuple[Prepared, ...]:
        """Every destination that this attempt may go to, the preferred one first."""
        return self, *self.others


class Preparer:
    """Loads deliveries. One a process; used by the pump alone."""

    def __init__(self, database: Database, directory: Directory, book: RouteBook) -> None:
        self._database = database
        self._directory = directory
        self._book = book
        self._lanes: dict[int, str] = {}  # names of lanes never change

    def prepare(self, claims: Sequence[Claim]) -> list[Prepared]:
        """One Prepared for each claim, in order. Raises Unavailable."""
        newest = max(claim.rev for claim in claims)
        self._directory.refresh(self._database, newest)
        self._book.refresh(self._database, newest, {claim.route_id for claim in claims if claim.route_id})
        stored = jobs.messages_of(self._database, claims)
        formed = [claim.id for claim in claims if claim.cursor and claim.cursor.get("form")]
        unknown = {claim.lane_id for claim in claims} - self._lanes.keys()
        forms: dict[str, tuple[str, str]] = {}
        if formed or unknown:
            with self._database.cursor() as cursor:
                forms = messages.forms(cursor, formed) if formed else forms
                self._lanes |= lanes.names(cursor, list(unknown)) if unknown else {}
        return [self._one(claim, stored.get(claim.message_id or ""), forms.get(claim.id)) for claim in claims]

    def _one(self, claim: Claim, message: StoredMessage | None, form: tuple[str, str] | None) -> Prepared:
        where: Mapping[str, Any] = claim.cursor or {}
        service = where.get("dest") or self._lanes[claim.lane_id]
        if message is None:
            return Prepared(claim, Destination.parse(service), service)
        plain = message.payload or "", message.headers
        if "any" not in where:
            return self._to(claim, message, service, where.get("i"), form or plain)
        forms = _forms(form) if form else [plain] * len(where["any"])
        first, *others = [
            self._to(claim, message, dest, i, own) for (i, dest), own in zip(where["any"], forms, strict=True)
        ]
        return first._replace(others=tuple(others))

    def _to(
        self, claim: Claim, message: StoredMessage, service: str, index: int | None, form: tuple[str, str]
    ) -> Prepared:
        payload, headers = form
        return Prepared(
            claim,
            _destination(service),
            service,
            message,
            payload if message.payload is not None else None,
            _headers(headers),
            self._book.plan(claim.route_id, index, service),
            index,
        )


#: Messages of one sender mostly bear the same headers, and go to the same few services.
_destination = lru_cache(256)(Destination.parse)


@lru_cache(256)
def _headers(text: str) -> Mapping[str, str]:
    headers: dict[str, str] = json.loads(text)
    return headers


def _forms(form: tuple[str, str]) -> list[tuple[str, str]]:
    """The forms of one delivery for each of its destinations, as routing has packed them."""
    payloads, headers = (json.loads(part) for part in form)
    return list(zip(payloads, headers, strict=True))
