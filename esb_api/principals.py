"""Who asks, and what a kind of key may call."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from esb_workers.registry.clients import Client
from esb_workers.store.revision import Known

Kind = Literal["nobody", "operator", "client", "service"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever the request's key belongs to."""

    kind: Kind
    client: Client | None = None
    #: The one service that a service key is for, and what it may do there: `heartbeat` or `pull`.
    service_id: str | None = None
    scope: str = ""
    #: By what this was decided, of the registrations; None where nothing remembered was used. A decision by what is
    #: remembered holds only if the accepting transaction finds that nothing of it has moved.
    known: Known | None = None

    @property
    def client_id(self) -> str | None:
        """The client's id; None for the operator."""
        return self.client.id if self.client else None

    @property
    def actor(self) -> str:
        """Who, for the audit trail and the log."""
        if self.client:
            return f"client:{self.client.id}"
        return f"service:{self.service_id}" if self.service_id else self.kind


NOBODY = Principal("nobody")
OPERATOR = Principal("operator")


class Access(Enum):
    """The kinds of key that a call takes."""

    OPEN = frozenset[Kind](("nobody", "operator", "client", "service"))
    OPERATOR = frozenset[Kind](("operator",))
    CLIENT = frozenset[Kind](("operator", "client"))
    SERVICE = frozenset[Kind](("operator", "service"))
