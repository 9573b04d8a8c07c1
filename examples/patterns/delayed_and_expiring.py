"""Delayed and expiring messages: not before, and not after."""

from datetime import UTC, datetime, timedelta

from scene import Scene


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


with Scene("delayed-and-expiring") as scene:
    desk = scene.service("desk")
    scene.route("later", topic="later", destinations=[scene.name("desk")])
    scene.route("never", topic="never", destinations=[scene.name("gone")])
    later = scene.send(1, topic="later", deliverAt=soon(1))
    never = scene.send(2, topic="never", expiresAt=soon(1))
    assert (later["status"], never["status"]) == ("delivered", "expired")
    print("one came later, one came too late")
