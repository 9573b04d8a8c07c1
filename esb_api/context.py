"""What the application holds for as long as it lives: settings, store, registries. One for each process."""

from __future__ import annotations

from dataclasses import dataclass, field

from esb_api.auth import BUILTIN, GROUP, Authenticator
from esb_api.endings import Endings
from esb_api.load import Load
from esb_api.metrics import Metrics
from esb_api.waiting import Waiting
from esb_workers import plugins
from esb_workers.app import make_celery
from esb_workers.bus import Bus
from esb_workers.delivery.pull import Puller
from esb_workers.errors import SettingsError
from esb_workers.listening.registry import Listeners
from esb_workers.orchestration.start import Orchestration
from esb_workers.registry.catalogue import Catalogue, MessageTypes
from esb_workers.registry.clients import Clients, KeyRing
from esb_workers.registry.instances import Directory
from esb_workers.registry.lookups import Lookups
from esb_workers.registry.quotas import Quotas
from esb_workers.registry.rejections import Rejections
from esb_workers.registry.revisions import Revisions
from esb_workers.registry.secrets import Vault
from esb_workers.registry.services import Services
from esb_workers.runtime.ringer import Ringer
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from esb_workers.transport.address import AddressGuard
from esb_workers.transport.http import HttpCaller
from esb_workers.webhooks.book import Book
from esb_workers.webhooks.refusals import Refusals
from esb_workers.webhooks.registry import Ingresses


@dataclass(slots=True)
class Api:
    """The collaborators of every view. Opening it connects to nothing."""

    settings: Settings
    database: Database
    revisions: Revisions
    keys: KeyRing
    bus: Bus
    services: Services
    puller: Puller
    listeners: Listeners
    orchestration: Orchestration
    clients: Clients
    quotas: Quotas
    rejections: Rejections
    catalogue: Catalogue
    message_types: MessageTypes
    ingresses: Ingresses
    ingress_book: Book
    lookups: Lookups
    refusals: Refusals
    waiting: Waiting
    endings: Endings
    metrics: Metrics
    load: Load
    #: For checks asked for by a person; everything else is called by the workers.
    http: HttpCaller
    authenticators: list[Authenticator] = field(default_factory=list)
    #: The OpenAPI document, once somebody has asked for it.
    openapi: bytes | None = None

    def close(self) -> None:
        """Write what is gathered, stop the ringer, close the connections."""
        self.rejections.write()
        self.refusals.write()
        self.bus.close()
        self.endings.close()
        self.quotas.close()
        self.http.close()
        self.database.dispose()


def open_api(settings: Settings) -> Api:
    """The context for one application. To be called after any fork: connections do not survive one."""
    if settings.database_url is None:
        raise SettingsError("ESB_DATABASE_URL is not set")
    database = Database(settings.database_url.get_secret_value(), pool_size=settings.api_threads, name="esb api")
    ringer = Ringer(make_celery(settings))
    vault = Vault(settings.secret_keys)
    metrics = Metrics()

    def settled() -> None:  # a reply or the next stop of a slip may be due
        ringer.ring("delivery")

    bus = Bus(database, ringer)
    revisions = Revisions(database)
    catalogue = Catalogue(database)
    api = Api(
        settings=settings,
        database=database,
        revisions=revisions,
        keys=KeyRing(database, revisions),
        bus=bus,
        orchestration=Orchestration(database, ringer),
        services=Services(database, vault),
        listeners=Listeners(bus, vault, catalogue, settings.max_body_bytes),
        puller=Puller(database, Directory(vault), settled),
        clients=Clients(database),
        quotas=Quotas(database, settings.redis_for_quotas()),
        rejections=Rejections(database),
        catalogue=catalogue,
        message_types=MessageTypes(database),
        ingresses=Ingresses(database, vault),
        ingress_book=Book(database, vault),
        lookups=Lookups(),
        refusals=Refusals(database),
        waiting=Waiting(settings.api_threads // 2),
        endings=Endings(database),
        metrics=metrics,
        load=Load(database, metrics, settings.max_backlog, settings.max_accept_ms),
        http=HttpCaller(AddressGuard.of(settings)),
    )
    api.authenticators = [make(api) for make in plugins.load(GROUP, BUILTIN).values()]
    return api
