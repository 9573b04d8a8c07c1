"""The bytes of one HTTP/1.1 request, and the rules on what may stand in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from esb_workers.transport.errors import RequestRefused

#: Headers that concern one connection only (RFC 9110 §7.6.1), or that the sender writes itself.
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection")
    + ("te", "trailer", "transfer-encoding", "upgrade", "expect")
)
_OWN = HOP_BY_HOP | {"host", "content-length"}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL_SAFE = "/%:@!$&'()*+,;=-._~?[]"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_METHOD = re.compile(r"[A-Z]{1,20}")
# RFC 9110 §5.5: no controls inside a value but the tab. The line feed is counted apart.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


class Origin(NamedTuple):
    """Where a connection leads to."""

    scheme: str
    host: str
    port: int


class Target(NamedTuple):
    """A URL taken apart for sending."""

    origin: Origin
    host_header: str
    path: str


@lru_cache(maxsize=4096)
def parse_url(url: str) -> Target:
    """Take a URL apart. Raises RequestRefused for what is no http(s) URL with a host and without a login."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RequestRefused(f"not a URL: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise RequestRefused("the URL must start with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise RequestRefused("the URL must not carry a login")
    host = _ascii_host(host)
    bracketed = f"[{host}]" if ":" in host else host
    default = _DEFAULT_PORTS[parts.scheme]
    header = bracketed if port in (None, default) else f"{bracketed}:{port}"
    path = quote(parts.path or "/", safe=_URL_SAFE)
    if parts.query:
        path += "?" + quote(parts.query, safe=_URL_SAFE)
    return Target(Origin(parts.scheme, host, default if port is None else port), header, path)


def _ascii_host(host: str) -> str:
    try:
        ascii_host = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        raise RequestRefused("the URL's host is not a valid name") from None
    if re.search(r"[\s\x00-\x20/\\<>\"@]", ascii_host):
        raise RequestRefused("the URL's host is not a valid name")
    return ascii_host


def head(method: str, target: Target, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """Request line and headers. Hop-by-hop headers, `Host` and `Content-Length` of the caller are left out.

    Raises RequestRefused for a name or value that would break out of its line.
    """
    if not _METHOD.fullmatch(method):
        raise RequestRefused("the HTTP method must be capital letters")
    pairs = tuple(headers)
    names = _looked_at(tuple([name for name, _ in pairs]))
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.host_header}"]
    lines += [f"{name}: {value}" for name, value in pairs if name not in names.left_out]
    if not names.encoding:
        lines.append("Accept-Encoding: identity")
    if body or method not in _BODILESS:
        lines.append(f"Content-Length: {len(body)}")
    # One look at the whole costs a tenth of one at each value.
    text = "\n".join(lines)
    if text.count("\n") != len(lines) - 1 or _CONTROL.search(text):
        raise RequestRefused("a header's value holds a line break or another control character")
    return (text.replace("\n", "\r\n") + "\r\n\r\n").encode("utf-8", "surrogatepass")


class _Names(NamedTuple):
    """What there is to say of the names of headers: `encoding`: they name the codings that are taken."""

    left_out: frozenset[str]
    encoding: bool


@lru_cache(maxsize=256)
def _looked_at(names: tuple[str, ...]) -> _Names:
    """They are the same few for call after call. Raises RequestRefused."""
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise RequestRefused(f"{name[:100]!r} cannot be the name of a header")
    left_out = frozenset(name for name in names if name.lower() in _OWN)
    return _Names(left_out, any(name.lower() == "accept-encoding" for name in names))
