"""The embedded servers on TCP and outside of `esb up`, so that a proxy can stand before them."""

from __future__ import annotations

import secrets
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from esb_workers.node.folders import free_port
from esb_workers.node.postgres import EmbeddedPostgres
from esb_workers.node.valkey import EmbeddedValkey


class TcpPostgres(EmbeddedPostgres):
    """PostgreSQL on 127.0.0.1."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self._port = free_port()


class TcpValkey(EmbeddedValkey):
    """Valkey on 127.0.0.1."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self._tcp = free_port(), secrets.token_urlsafe(24)


def port_of(url: str) -> int:
    """The port of a URL that has one."""
    port = urlsplit(url).port
    assert port is not None
    return port


def through(url: str, port: int) -> str:
    """The same server, reached by another port of this machine."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}" if login else f"127.0.0.1:{port}"))
