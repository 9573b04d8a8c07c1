"""Transports are plug-ins: the scheme of an endpoint chooses, and an installed package may bring another one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from esb_workers.transport import transports
from tests.support.api import ApiClient
from tests.support.engines import Engines

EXAMPLE = Path(__file__).parents[2] / "examples" / "06_plugin"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example package, installed by pip where this process finds it."""
    site, source = tmp_path / "site", tmp_path / "source"
    source.mkdir()
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(source)]
    subprocess.run(command, check=True, timeout=120)
    monkeypatch.syspath_prepend(str(site))
    transports.known.cache_clear()
    yield
    transports.known.cache_clear()


@pytest.mark.usefixtures("installed")
def test_an_installed_transport_delivers_to_endpoints_of_its_scheme(
    api: ApiClient, settings: Settings, database: Database, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    folder = tmp_path / "spool"
    wrong = api.post("/services", {"name": "files", "version": "1.0.0", "endpoint": "spool://host/x"})
    assert wrong.status_code == 422 and "ABSOLUTE" in wrong.json["errors"][0]["message"]
    endpoint = f"spool://{folder}"
    policy = {"maxRetries": 100, "backoffStrategy": "fixed", "initialDelay": 50}
    body = {"name": "files", "version": "1.0.0", "endpoint": endpoint, "delivery": {"retryPolicy": policy}}
    assert api.post("/services", body).status_code == 201
    api.post("/routing/routes", {"name": "files", "pattern": "#", "destinations": ["files"]})
    sent = api.post("/routing/send", {"source": "s", "messageType": "t", "payload": {"n": 1}}).json
    with Engines(settings, database):
        eventually(lambda: any(d["attempts"] for d in api.get(f"/routing/messages/{sent['id']}").json["deliveries"]))
        folder.mkdir()
        eventually(lambda: api.get(f"/routing/messages/{sent['id']}").json["status"] == "delivered")
    delivery = api.get(f"/routing/messages/{sent['id']}").json["deliveries"][0]
    assert json.loads((folder / f"{delivery['id']}.json").read_text()) == {"n": 1}


def test_a_delivery_waits_for_a_transport_that_is_not_installed_here(
    api: ApiClient, settings: Settings, database: Database, eventually: Callable[..., None]
) -> None:
    made = api.post("/services", {"name": "files", "version": "1.0.0", "endpoint": "http://127.0.0.1:9"}).json
    with database.cursor() as cursor:
        cursor.execute("update service set endpoint = 'spool:///nowhere' where id = %s", (made["id"],))
        cursor.execute("select esb_changed('services')")
    api.post("/routing/routes", {"name": "files", "pattern": "#", "destinations": ["files"]})
    sent = api.post("/routing/send", {"source": "s", "messageType": "t", "payload": {}}).json
    with Engines(settings, database):

        def held() -> bool:
            deliveries = api.get(f"/routing/messages/{sent['id']}").json["deliveries"]
            return bool(deliveries) and deliveries[0]["reason"] == "no_transport"

        eventually(held)
