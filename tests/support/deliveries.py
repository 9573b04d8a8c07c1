"""A database with services, routes and messages in it, and a delivery engine over it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cryptography.fernet import Fernet

from esb_workers.app import make_celery
from esb_workers.delivery import tasks
from esb_workers.registry.secrets import Vault
from esb_workers.runtime.ringer import Ringer
from esb_workers.runtime.slots import SlotEngine
from esb_workers.settings import Settings
from esb_workers.store import lanes
from esb_workers.store.engine import Database
from esb_workers.store.ids import new_id

KEY = Fernet.generate_key().decode()

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

DELIVERY = 2


class World:
    """A database with services, routes and messages in it, and a delivery engine over it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.settings = Settings.load(
            {}, None, broker_url="redis://127.0.0.1:1/0", secret_keys=(KEY,), lease_seconds=3.0, sweep_seconds=0.3
        )
        self.engine: SlotEngine | None = None

    def start(self) -> SlotEngine:
        ringer = Ringer(make_celery(self.settings))
        self.engine = tasks.make_engine(self.settings, self.database, ringer, slots=8)
        self.engine.start()
        return self.engine

    def stop(self) -> None:
        if self.engine:
            self.engine.stop(5)
            self.engine.ringer.close()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.database.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []

    def service(
        self, name: str, endpoint: str, version: str = "1.0.0", *, status: str = "active", **delivery: Any
    ) -> str:
        id_ = new_id()
        with self.database.raw_transaction() as cursor:
            cursor.execute(
                "insert into service (id, name, version, endpoint, status, delivery, secret) values (%s, %s, %s, %s, %s, %s, %s)",
                (id_, name, version, endpoint, status, json.dumps(delivery), Vault((KEY,)).seal(SECRET)),
            )
            cursor.execute("insert into service_state (service_id) values (%s)", (id_,))
            cursor.execute("select esb_gate(%s), esb_changed('services')", (name,))
        return id_

    def set_status(self, service_id: str, status: str) -> None:
        with self.database.raw_transaction() as cursor:
            cursor.execute("update service set status = %s where id = %s returning name", (status, service_id))
            (name,) = cursor.fetchone()  # type: ignore[misc]
            cursor.execute("select esb_gate(%s), esb_changed('services')", (name,))

    def end_pause(self, service_id: str) -> None:
        """Let the time of an open circuit be over."""
        with self.database.raw_transaction() as cursor:
            cursor.execute("update service_state set circuit_until = now() where service_id = %s", (service_id,))
            cursor.execute("select esb_gate(name), esb_changed('services') from service where id = %s", (service_id,))

    def route(self, *destinations: Any, **body: Any) -> str:
        id_ = new_id()
        self.sql(
            "insert into route (id, name, body) values (%s, %s, %s)",
            id_,
            id_,
            json.dumps({"destinations": destinations, **body}),
        )
        self.sql("select esb_changed('routes')")
        return id_

    def deliver(
        self,
        destination: str,
        route: str | None = None,
        *,
        i: int = 0,
        key: str | None = None,
        form: tuple[Any, Any] | None = None,
        **message: Any,
    ) -> str:
        """Put a delivery on the lane of `destination`; its id."""
        given = {
            "source": "shop",
            "type": "order.placed",
            "correlation_id": "c-1",
            "headers": "{}",
            "payload": '{"b": 1.0, "a": 2}',
        }
        values = given | {"id": new_id()} | message
        columns = ", ".join(values)
        self.sql(f"insert into message ({columns}) values ({', '.join(['%s'] * len(values))})", *values.values())
        id_ = new_id()
        with self.database.cursor() as cursor:
            lane = lanes.lane_id(cursor, DELIVERY, destination.partition("@")[0])
        if form:
            self.sql(
                "insert into form (delivery_id, payload, headers) values (%s, %s, %s)", id_, *map(json.dumps, form)
            )
        self.sql(
            "insert into job (id, pool, lane_id, route_id, okey, state, message_id, cursor, expires_at) values (%s, 2, %s, %s, %s, %s, %s, %s, %s)",
            id_, lane, route, key, "q" if key else "r", values["id"], json.dumps({"i": i, "dest": destination} | ({"form": True} if form else {})), values.get("expires_at"),
        )  # fmt: skip
        if key:
            self.sql("select esb_promote(array[%s], array[%s])", lane, key)
        if self.engine:
            self.engine.poke()
        return id_

    def ended(self, delivery: str) -> tuple[str, str | None, dict[str, Any]] | None:
        rows = self.sql("select status, class, last from delivery where id = %s", delivery)
        return rows[0] if rows else None

    def open(self, delivery: str) -> dict[str, Any] | None:
        rows = self.sql(
            "select state, tries, cursor, extract(epoch from run_at - now())::float8 from job where id = %s", delivery
        )
        return dict(zip(("state", "tries", "cursor", "in"), rows[0], strict=True)) if rows else None


Eventually = Callable[..., None]
