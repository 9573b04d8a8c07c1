"""A transport for endpoints of the form `spool:///var/spool/orders`: each delivery becomes a file in that folder.

The file is named after the delivery's id, which is the same at every attempt: a repeat replaces the file by itself.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from requests import PreparedRequest, Response

from esb_workers.transport.adapter import taken
from esb_workers.transport.address import AddressGuard
from esb_workers.transport.errors import ConnectFailed


class SpoolTransport:
    """See `esb_workers.transport.transports.Transport` for what is asked of it."""

    def __init__(self, guard: AddressGuard) -> None:
        """The guard is for transports that connect to somewhere."""

    @classmethod
    def check_endpoint(cls, endpoint: str) -> None:
        """Called when a service is registered: the message becomes the 422."""
        parts = urlsplit(endpoint)
        if parts.netloc or not parts.path.startswith("/"):
            raise ValueError("must be spool:///ABSOLUTE/FOLDER")

    def send(self, request: PreparedRequest, *, timeout: float, max_body: int) -> Response:
        """Write the file under another name, then give it its own: a reader never sees half of it."""
        started = time.monotonic()
        folder = Path(unquote(urlsplit(str(request.url)).path))
        name = f"{request.headers['Idempotency-Key']}.json"
        body = request.body if isinstance(request.body, bytes) else str(request.body or "").encode()
        try:
            with (folder / f".{name}").open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            (folder / f".{name}").replace(folder / name)
        except OSError as error:  # a CallFailed that is transient: the delivery is tried again
            raise ConnectFailed(f"{folder}: {error.strerror}") from error
        return taken(time.monotonic() - started)

    def close(self) -> None:
        """Nothing is kept open."""
