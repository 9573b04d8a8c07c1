"""The application for any WSGI server: `esb_api.wsgi:app`, settings from the environment.

`app` is made when it is first asked for, so that importing this module reads nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask

    app: Flask


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    from esb_api.app import create_app
    from esb_workers.settings import Settings

    globals()["app"] = create_app(Settings.load())
    return globals()["app"]
