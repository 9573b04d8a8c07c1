"""Delayed and expiring messages: not before, and not after."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.integration.patterns.conftest import Scene


def test_one_message_waits_for_its_time_and_another_does_not_outlive_its_own(running: Scene) -> None:
    desk = running.service("desk")
    running.route(name="later", pattern="later", destinations=["desk"])
    running.route(name="never", pattern="never", destinations=["gone"])
    due = datetime.now(UTC) + timedelta(seconds=0.6)
    later = running.send(1, messageType="later", deliverAt=due.isoformat())
    never = running.send(2, messageType="never", expiresAt=due.isoformat())
    assert running.message(later)["status"] == "scheduled" and desk.hits == []
    assert running.ended(later)["status"] == "delivered"
    assert running.ended(never)["status"] == "expired"
