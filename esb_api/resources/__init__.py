"""One module for each noun, its endpoints declared on a `Resource`."""

from __future__ import annotations

from typing import Final

from esb_api.operations import Resource
from esb_api.resources.blocked_keys import blocked_keys
from esb_api.resources.bulk import bulk
from esb_api.resources.callbacks import callbacks
from esb_api.resources.claim_checks import claim_checks
from esb_api.resources.clients import clients
from esb_api.resources.dead_letters import dead_letters
from esb_api.resources.execution_graphs import execution_graphs
from esb_api.resources.executions import executions
from esb_api.resources.ingress import ingress
from esb_api.resources.listeners import listeners
from esb_api.resources.lookup_tables import lookup_tables
from esb_api.resources.message_types import message_types
from esb_api.resources.messages import messages
from esb_api.resources.pull import pull
from esb_api.resources.routes import routes
from esb_api.resources.schedules import schedules
from esb_api.resources.sending import sending
from esb_api.resources.services import services
from esb_api.resources.system import system
from esb_api.resources.trials import trials
from esb_api.resources.unroutable import unroutable
from esb_api.resources.webhooks import webhooks
from esb_api.resources.workflows import workflows

#: Every resource of the API, in the order of the document.
RESOURCES: Final[tuple[Resource, ...]] = (
    services,
    clients,
    routes,
    lookup_tables,
    sending,
    messages,
    claim_checks,
    blocked_keys,
    dead_letters,
    unroutable,
    pull,
    listeners,
    message_types,
    ingress,
    webhooks,
    workflows,
    trials,
    executions,
    callbacks,
    execution_graphs,
    bulk,
    schedules,
    system,
)
