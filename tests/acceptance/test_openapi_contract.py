"""The served OpenAPI document and the API hold each other: whatever is sent, what comes back is what it says.

Schemathesis makes requests out of the document, good ones and bad ones, and judges the answers by it: no 5xx, no
status, media type or body that the document does not name, nothing accepted that it forbids.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

import psycopg2
import pytest
import schemathesis
from cryptography.fernet import Fernet
from flask import Flask
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi import checks

from esb_api.app import create_app
from esb_workers.settings import Settings
from tests.conftest import TEMPLATE, with_database
from tests.support.api import OPERATOR_KEY, ApiClient

#: Requests made for each operation; a longer run finds more.
EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "5"))

#: Calls that answer 2xx to what is wrong and say so in the answer: a batch's bad message, a dry check's faults.
_FORGIVING = ("/routing/send/batch", "/routing/events", "/orchestration/workflows/validate")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_MAKE = {
    "services": lambda: {"name": f"s{uuid.uuid4().hex}", "version": "1.0.0", "endpoint": "http://127.0.0.1:1", "healthCheck": {"type": "heartbeat"}},
    "clients": lambda: {"name": f"c{uuid.uuid4().hex}", "rateLimits": {"requestsPerHour": 5}},
}  # fmt: skip


def _application(database_url: str) -> Flask:
    keys = (Fernet.generate_key().decode(),)
    return create_app(
        Settings.load({}, None, database_url=database_url, admin_key=OPERATOR_KEY, secret_keys=keys, api_threads=4)
    )


class Stage:
    """The application on stage: the document needs no database, and the cases must be known before there is one."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.app(environ, start_response)


stage = Stage(_application("postgresql://nobody@127.0.0.1:1/none"))
schema = schemathesis.openapi.from_wsgi("/openapi.json", stage)


@pytest.fixture(scope="module")
def app(postgres_url: str) -> Iterator[Flask]:
    """The application over a database that every case shares: what one leaves, the next meets."""
    name = f"contract_{os.getpid()}"
    connection = psycopg2.connect(postgres_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"create database {name} template {TEMPLATE}")
        app = stage.app = _application(with_database(postgres_url, name))
        yield app
        app.extensions["esb"].close()
        cursor.execute(f"drop database {name} with (force)")
    connection.close()


def _judge(case: schemathesis.Case, app: Flask) -> None:
    _aim_at_something(case, ApiClient(app, OPERATOR_KEY))
    # What a field may hold is often finer than a schema can say, and is then refused with 422.
    excluded = [checks.positive_data_acceptance, checks.ignored_auth]
    response = case.call(headers={"X-API-Key": OPERATOR_KEY})
    if case.path in _FORGIVING or response.status_code == 412:
        excluded.append(checks.negative_data_rejection)
    case.validate_response(response, excluded_checks=excluded)


def _contract_of(method: str, path: str) -> Callable[..., None]:
    """The test of one operation."""

    @schema.include(method=method.upper(), path=path).parametrize()
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def every_answer_is_in_the_document(case: schemathesis.Case, app: Flask) -> None:
        _judge(case, app)

    return every_answer_is_in_the_document


# A function for each: schemathesis gives all operations of one function the same id, and tests that are spread over
# processes by file are known by their ids, so that only one of them would run.
for _path, _methods in schema.raw_schema["paths"].items():
    for _method in sorted(_methods.keys() & {"get", "post", "put", "patch", "delete"}):
        globals()[f"test_{_method}_{re.sub(r'[^a-z_]+', '_', _path.lower())}"] = _contract_of(_method, _path)


def _aim_at_something(case: schemathesis.Case, api: ApiClient) -> None:
    """Half of the ids are made to name something that is there."""
    noun = case.path.split("/")[1]
    wanted = (case.path_parameters or {}).get("id")
    if noun not in _MAKE or not isinstance(wanted, str) or not _UUID.fullmatch(wanted) or int(wanted[-1], 16) % 2:
        return
    case.path_parameters["id"] = api.post(f"/{noun}", _MAKE[noun]()).json["id"]
