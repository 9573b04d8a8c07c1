"""HTTP/1.1 requests of the plainest form, read and answered without a server's general machinery.

Only what the front door's callers send by the thousand is read here: a POST of a known path with a body of known
length, every header once, in printable ASCII, under a name without underscores. Whatever deviates from that by a byte
is left to gunicorn, which alone decides what of it is good: so there is nothing here that could be read in two ways.
"""

from __future__ import annotations

import io
import re
import time
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final, NamedTuple

from flask import Response
from gunicorn import SERVER

#: A larger request keeps others waiting for too long, bytes.
MOST: Final = 16_384
#: Headers in one request at most, as gunicorn has it.
HEADERS: Final = 100

_HEAD: Final = re.compile(rb"POST (/[\w/.~-]*) HTTP/1\.1\r\n((?:[!#$%&'*+.^`|~0-9A-Za-z-]+:[\t -~]*\r\n)+)\r\n")
#: Requests with these wait for more than the commit, or are framed in another way.
OTHERWISE: Final = frozenset(
    ("PREFER", "IDEMPOTENCY-KEY", "TRANSFER-ENCODING", "EXPECT", "UPGRADE", "CONNECTION", "TRAILER", "TE")
)


class PlainRequest(NamedTuple):
    """A whole request. `size`: its bytes in the buffer; `environ` is WSGI's."""

    environ: dict[str, Any]
    size: int


def read_plain(data: bytes, paths: frozenset[bytes], base: dict[str, Any]) -> PlainRequest | None:
    """The request at the beginning of `data`, if it is a plain one for one of `paths`, and all of it is there.

    `base`: what of the environment the connection decides.
    """
    head = _HEAD.match(data)
    if head is None or head[1] not in paths:
        return None
    lines = head[2].decode("ascii").split("\r\n")
    lines.pop()
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.upper()] = value.strip(" \t")
    length = fields.pop("CONTENT-LENGTH", "")
    if len(fields) + 1 != len(lines) or len(lines) > HEADERS or "HOST" not in fields:
        return None  # a header that is given twice, or is missing
    if not (length.isdecimal() and len(length) < 6) or not OTHERWISE.isdisjoint(fields):
        return None
    if "batch" in fields.get("CONTENT-TYPE", "").lower():
        return None  # many events in a transaction of their own
    size = head.end() + int(length)
    if size > min(len(data), MOST):
        return None
    environ = base | {"HTTP_" + name.replace("-", "_"): value for name, value in fields.items()}
    if "HTTP_CONTENT_TYPE" in environ:
        environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE")
    environ["PATH_INFO"] = environ["RAW_URI"] = head[1].decode("ascii")
    environ["CONTENT_LENGTH"] = length
    environ["wsgi.input"] = io.BytesIO(data[head.end() : size])
    return PlainRequest(environ, size)


def environment(client: Any, server: Any) -> dict[str, Any]:
    """What of the WSGI environment a connection decides. `client`, `server`: addresses, or text for a local socket."""
    client, server = (one if isinstance(one, tuple) else (str(one), 0) for one in (client, server))
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }


def written(response: Response, *, keep: bool) -> bytes:
    """The bytes of an answer with a body. Header values hold no line breaks: werkzeug sees to that."""
    body = response.get_data()
    lines = [
        f"HTTP/1.1 {response.status}\r\nServer: {SERVER}\r\nDate: {_date(int(time.time()))}\r\n",
        f"Connection: {'keep-alive' if keep else 'close'}\r\nContent-Length: {len(body)}\r\n",
    ]
    lines += [f"{name}: {value}\r\n" for name, value in response.headers if name != "Content-Length"]
    lines.append("\r\n")
    return "".join(lines).encode("latin-1") + body


@lru_cache(maxsize=4)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
