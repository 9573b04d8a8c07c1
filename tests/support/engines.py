"""The routing and delivery pools in this process, over a test's own database."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Self

from esb_workers.app import make_celery
from esb_workers.delivery import tasks as delivery
from esb_workers.routing import tasks as routing
from esb_workers.routing.forming import Former
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store.engine import Database


class Engines:
    """`with Engines(settings, database): …`: what is sent is routed and delivered meanwhile.

    There is no broker: each engine looks for work itself, every `sweep_seconds`.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        settings = settings.model_copy(update={"sweep_seconds": 0.2, "lease_seconds": 5.0})
        self._ringer = Ringer(make_celery(settings))
        self._engines = [
            routing.make_engine(settings, database, self._ringer),
            delivery.make_engine(
                settings, database, self._ringer, slots=8, make_former=partial(Former, base_url=settings.base_url)
            ),
        ]

    def __enter__(self) -> Self:
        for engine in self._engines:
            engine.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in self._engines:
            engine.stop(5)
        self._ringer.close()
