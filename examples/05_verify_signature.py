"""How a receiver checks that a delivery comes from the bus: Standard Webhooks, with the standard library alone.

There are ready-made libraries for most languages at https://www.standardwebhooks.com.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from receiver import Service, connect


def genuine(secret: str, headers: Mapping[str, str], body: bytes, tolerance: int = 300) -> bool:
    """Whether `body` was signed with `secret` (`whsec_…`) less than `tolerance` seconds ago."""
    sent = {name.lower(): value for name, value in headers.items()}
    if abs(time.time() - int(sent["webhook-timestamp"])) > tolerance:
        return False
    signed = f"{sent['webhook-id']}.{sent['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    # Several signatures, parted by spaces, while a secret is rotated.
    return any(hmac.compare_digest(wanted, given) for given in sent["webhook-signature"].split())


bus = connect()
with Service() as receiver:
    service = bus.services.create({"name": "signed-service", "version": "1.0.0", "endpoint": receiver.url})
    secret: str = service["delivery"]["signingSecret"]  # shown this once
    route = bus.routes.create({"name": "signed", "pattern": "signed.#", "destinations": ["signed-service"]})
    payload: dict[str, Any] = {"amount": 12.5}
    bus.send({"source": "example", "messageType": "signed.payment", "payload": payload}, wait=10)

    _, headers, body = receiver.calls[0]
    raw = json.dumps(body, separators=(",", ":")).encode()  # a real receiver keeps the bytes as they came
    print("genuine:", genuine(secret, headers, raw))
    print("changed:", genuine(secret, headers, raw.replace(b"12.5", b"99.5")))

    bus.routes.delete(route["id"])
    bus.services.delete(service["id"])
assert genuine(secret, headers, raw)
assert not genuine(secret, headers, raw + b" ")
