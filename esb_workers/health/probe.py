"""One look at an instance, over HTTP or TCP."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from esb_workers.health.judge import expected, parse_expected
from esb_workers.store.checks import Finding
from esb_workers.transport.errors import CallFailed, RequestRefused
from esb_workers.transport.http import HttpCaller

#: Of an answer to a probe only the status counts; this much of its body is read so that the connection can be kept.
_BODY = 16 * 1024
_HEADERS = (("User-Agent", "python-esb health check"), ("Accept", "*/*"))
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TCP_SCHEMES = ("tcp", *_DEFAULT_PORTS)


def probe(caller: HttpCaller, health_check: dict[str, Any]) -> Finding:
    """Look once, as `healthCheck` says. Never raises for what the outside world does."""
    try:
        if health_check.get("type") == "tcp":
            return _tcp(caller, health_check)
        return _http(caller, health_check)
    except CallFailed as error:
        return Finding(False, error=f"{error.error_class}: {error.detail}")


def _http(caller: HttpCaller, health_check: dict[str, Any]) -> Finding:
    reply = caller.call("GET", health_check["url"], _HEADERS, timeout_ms=_timeout(health_check), max_body=_BODY)
    wanted = str(health_check.get("expectedStatus", "2xx"))
    ok = expected(reply.status, parse_expected(wanted))
    return Finding(ok, reply.duration_ms, reply.status, None if ok else f"status {reply.status}, not {wanted}")


def _tcp(caller: HttpCaller, health_check: dict[str, Any]) -> Finding:
    return Finding(True, caller.reach(*tcp_place(health_check["url"]), _timeout(health_check)))


def tcp_place(url: str) -> tuple[str, int]:
    """Host and port in `tcp://HOST:PORT`, `HOST:PORT`, or a URL over HTTP. Raises RequestRefused."""
    try:
        parts = urlsplit(url if "://" in url else f"tcp://{url}")
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        port = None
    if not port or not parts.hostname or parts.scheme not in _TCP_SCHEMES or re.search(r"[\x00-\x20\x7f@]", url):
        raise RequestRefused("the URL must name a host and a port")
    return parts.hostname, port


def _timeout(health_check: dict[str, Any]) -> int:
    return int(health_check.get("timeout", 5000))
