"""Routing slips: the answer of one stop becomes what the next one is sent. Pure."""

from __future__ import annotations

import json

from esb_workers.delivery.answers import as_json
from esb_workers.delivery.call import Called
from esb_workers.store.deliveries import Onward


def onward(called: Called) -> Onward | None:
    """Where a stop's 2xx answer goes; None at the end of the slip, and without one.

    A stop that answers nothing leaves the payload as it is.
    """
    cursor = called.prepared.claim.cursor
    if not cursor or not cursor.get("slip"):
        return None
    (index, service, transformed), *rest = cursor["slip"]
    kept = {name: cursor[name] for name in ("index",) if name in cursor}
    if transformed:
        kept["raw"] = "destination"  # to be formed when its turn comes
    payload = as_json(called.body) if called.body.strip() else called.prepared.payload
    return Onward(
        service=service,
        cursor=kept | {"i": index, "dest": service, "slip": rest, "form": True},
        payload=payload or "null",
        headers=json.dumps(dict(called.prepared.headers)),
    )
