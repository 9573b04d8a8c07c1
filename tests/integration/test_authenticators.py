"""Ways to authenticate are plug-ins: an installed one is asked after the built-in ones."""

from __future__ import annotations

from typing import Any

import pytest

from esb_api.app import create_app
from esb_api.auth import GROUP, Authenticator
from esb_api.call import Call
from esb_api.context import Api
from esb_api.principals import OPERATOR, Principal
from esb_workers import plugins
from esb_workers.errors import Unauthenticated
from esb_workers.settings import Settings
from tests.support.api import OPERATOR_KEY, ApiClient


def ticket_authenticator(api: Api) -> Authenticator:
    """Takes `Authorization: Ticket gold` for the operator."""

    def authenticator(call: Call, cached: bool) -> Principal | None:
        scheme, _, ticket = call.environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme != "Ticket":
            return None
        if ticket != "gold":
            raise Unauthenticated("This ticket is not valid.")
        return OPERATOR

    return authenticator


def test_an_installed_authenticator_is_asked_too(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = plugins.load

    def load(group: str, *args: Any) -> dict[str, Any]:
        found = real(group, *args)
        return found | {"ticket": ticket_authenticator} if group == GROUP else found

    monkeypatch.setattr(plugins, "load", load)
    api = ApiClient(create_app(settings), None)
    assert api.get("/services", Authorization="Ticket gold").status_code == 200
    assert api.get("/services", Authorization="Ticket tin").json["detail"] == "This ticket is not valid."
    assert api.with_key(OPERATOR_KEY).get("/services").status_code == 200
    assert api.get("/services").status_code == 401
    api.context.close()
