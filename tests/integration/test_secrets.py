"""Secrets at rest: encrypted, and encrypted anew when the key changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.fernet import Fernet

from esb_api.cli.main import esb
from esb_workers.errors import SettingsError
from esb_workers.node.keys import with_keys
from esb_workers.registry.secrets import Vault
from esb_workers.settings import Settings
from esb_workers.store.engine import Database
from tests.support.api import ApiClient


def stored(database: Database) -> list[str]:
    with database.cursor() as cursor:
        cursor.execute("""
            select secret from service union all select old_secret from service where old_secret is not null
            union all select s->>'sealed' from ingress, jsonb_array_elements(secrets) s""")
        return [row[0] for row in cursor.fetchall()]


def test_secrets_are_encrypted_anew_with_the_newest_key_and_are_the_same(
    api: ApiClient, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (oldest,) = settings.secret_keys
    made = api.post("/services", {"name": "a", "version": "1.0.0", "endpoint": "http://localhost:1"}).json
    first = made["delivery"]["signingSecret"]
    second = api.post(f"/services/{made['id']}/signing-secret/rotate", {"overlap": 60_000}).json["signingSecret"]
    hook = {
        "name": "hook",
        "verification": {"type": "github", "secrets": ["hush-hush"]},
        "mapping": {"messageType": "a"},
    }
    assert api.post("/routing/ingress", hook).status_code == 201
    before, newest = stored(database), Fernet.generate_key().decode()
    assert not any(secret in sealed for secret in (first, second) for sealed in before)
    monkeypatch.setenv("ESB_DATABASE_URL", database.url)
    monkeypatch.setenv("ESB_SECRET_KEYS", f"{newest},{oldest}")
    done = CliRunner().invoke(esb, ["secrets", "rotate"])
    assert (done.exit_code, done.output) == (0, "3 secrets are encrypted with the newest key\n")
    after = stored(database)
    assert sorted(map(Vault([newest]).open, after)) == sorted([first, second, "hush-hush"])
    with pytest.raises(SettingsError):
        Vault([oldest]).open(after[0])
    assert api.get("/system/audit?resource=secrets").json["items"][0]["action"] == "reseal"


def test_a_secret_that_no_key_reads_stops_the_rotation_and_leaves_all_as_they_were(
    api: ApiClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        api.post("/services", {"name": name, "version": "1.0.0", "endpoint": "http://localhost:1"})
    before = stored(database)
    monkeypatch.setenv("ESB_DATABASE_URL", database.url)
    monkeypatch.setenv("ESB_SECRET_KEYS", Fernet.generate_key().decode())
    done = CliRunner().invoke(esb, ["secrets", "rotate"])
    assert isinstance(done.exception, SettingsError)
    assert stored(database) == before


def test_a_new_key_stands_in_front_of_those_in_the_data_directory(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir.mkdir()
    settings = Settings.load({}, None, data_dir=data_dir)
    old = with_keys(settings).settings.secret_keys
    monkeypatch.chdir(data_dir)
    done = CliRunner().invoke(esb, ["secrets", "new-key", "--data-dir", str(data_dir)])
    assert done.exit_code == 0
    new, *others = with_keys(settings).settings.secret_keys
    assert tuple(others) == old
    assert new not in done.output
    Fernet(new)


def test_a_key_is_shown_by_no_repr_of_the_settings() -> None:
    key = Fernet.generate_key().decode()
    settings = Settings.load({}, None, secret_keys=(key,), admin_key="a" * 24)
    assert key not in repr(settings) + str(settings)
