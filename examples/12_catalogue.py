"""A message type with a schema: watched first, then enforced, then changed without breaking anybody."""

from __future__ import annotations

from typing import Any

from receiver import connect

from esb_api.client import ApiError, Json

bus = connect()
schema: Json = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "total": {"type": "number", "minimum": 0}},
    "required": ["id", "total"],
}
kind = bus.message_types.create({"name": "example.order", "schema": schema, "mode": "warn"})


def send(payload: Any) -> Json:
    return bus.send({"source": "example", "messageType": "example.order", "payload": payload})


watched = bus.messages.get(send({"id": "o-1", "total": -5})["id"])
warning = next(entry for entry in watched["timeline"] if entry["type"] == "message.schema_warning")
print("accepted, and noted:", warning["detail"]["errors"][0]["message"])

bus.message_types.change(kind["id"], {"mode": "enforce"})
try:
    send({"id": "o-2", "total": -5})
    refused = None
except ApiError as error:
    refused = error.problem
    print("refused:", refused["errors"])

wider = schema | {"properties": schema["properties"] | {"note": {"type": "string"}}}
narrower = wider | {"required": ["id", "total", "note"]}
verdict = bus.message_types.act(kind["id"], "compatibility", {"schema": narrower})
print("narrower would break:", [f"{change['path']} {change['message']}" for change in verdict["breaking"]])
made = bus.message_types.act(kind["id"], "versions", {"schema": wider})
print("wider is version", made["version"])

bus.message_types.delete(kind["id"])
assert refused is not None
assert refused["errors"][0]["path"] == "payload.total"
assert not verdict["compatible"]
assert made["version"] == 2
