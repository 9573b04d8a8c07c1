"""One request as the views see it: Flask's request, and what the bus knows of it besides."""

from __future__ import annotations

import random
import re
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Final

from flask import Request

from esb_api.principals import NOBODY, Principal
from esb_workers import logs
from esb_workers.errors import Malformed, TooLarge, UnsupportedMediaType
from esb_workers.store.ids import new_id
from esb_workers.strictjson import parse_json
from esb_workers.transport.attributes import TRACEPARENT

if TYPE_CHECKING:
    from esb_api.context import Api
    from esb_api.limits import RateLimit
    from esb_api.operations import Operation

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
#: How much of a body that is too large is read and thrown away: so many times the limit, in pieces of so many bytes.
_PATIENCE: Final = 16
_PIECE: Final = 1 << 16

_VISIBLE: Final = re.compile(r"[!-~]{1,200}")


class Call(Request):
    """A request. `api` is set on the subclass that `create_app` makes for its application."""

    api: ClassVar[Api]

    def __init__(self, environ: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(environ, *args, **kwargs)
        self.started = time.perf_counter()
        self.request_id = new_id()
        self.operation: Operation | None = None
        self.principal: Principal = NOBODY
        self.limits: RateLimit | None = None
        given = environ.get("HTTP_X_CORRELATION_ID")
        self._correlation_id: str | None = given if given is not None and _VISIBLE.fullmatch(given) else None
        self._raw: bytes | None = None
        self._refused: TooLarge | None = None
        _current.set(self)

    # --- correlation ---------------------------------------------------------------------------------

    @property
    def correlation_id(self) -> str:
        """What the body set, else `X-Correlation-ID`, else new. Raises Malformed for an unusable header."""
        if self._correlation_id is None:
            if "HTTP_X_CORRELATION_ID" in self.environ:
                raise Malformed("X-Correlation-ID must be 1 to 200 visible ASCII characters.", code="malformed_header")
            self._correlation_id = new_id()
        return self._correlation_id

    @correlation_id.setter
    def correlation_id(self, value: str) -> None:
        self._correlation_id = value
        logs.annotate(request_id=self.request_id, correlation_id=value)

    @property
    def known_correlation_id(self) -> str | None:
        """The correlation id if it has been settled; never raises."""
        return self._correlation_id

    @property
    def traceparent(self) -> str:
        """The caller's W3C `traceparent`, or a new one; W3C has an invalid one ignored."""
        given = self.environ.get("HTTP_TRACEPARENT", "")
        if TRACEPARENT.fullmatch(given):
            return str(given)
        # Not secrets: they name, and random numbers from the kernel would each let go of the interpreter's lock.
        return f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-01"

    # --- body ----------------------------------------------------------------------------------------

    def raw_body(self, limit: int) -> bytes:
        """The body's bytes, at most `limit`. Raises TooLarge, UnsupportedMediaType. May be called again."""
        if self._refused is not None:
            raise self._refused
        if self._raw is None:
            if self.environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() != "identity":
                raise UnsupportedMediaType("Encoded bodies are not taken.", code="unsupported_content_encoding")
            self._raw = self._read(limit)
        return self._raw

    def _read(self, limit: int) -> bytes:
        # Straight from the server: Flask's wrapping of the stream costs more than reading a small body, and would
        # cut a chunked body that is too long where it should refuse it.
        length = self.environ.get("CONTENT_LENGTH") or ""
        if not length.isdecimal():
            return self._read_chunks(limit)
        if int(length) > limit:
            raise self._too_large(limit)
        raw: bytes = self.environ["wsgi.input"].read(int(length))
        if len(raw) < int(length):
            raise Malformed("The body ended before its Content-Length.")
        return raw

    def _read_chunks(self, limit: int) -> bytes:
        if not self.environ.get("wsgi.input_terminated"):
            return b""  # without a length, only a server that knows where the body ends may be asked for it
        raw: bytes = self.environ["wsgi.input"].read(limit + 1)
        if len(raw) > limit:
            raise self._too_large(limit)
        return raw

    def _too_large(self, limit: int) -> TooLarge:
        # The rest is read all the same, within reason: from a server that hangs up on a body, its sender may see a
        # broken connection in place of the refusal.
        stream, left = self.environ["wsgi.input"], limit * _PATIENCE
        while left > 0 and (piece := stream.read(min(left, _PIECE))):
            left -= len(piece)
        self._refused = TooLarge(f"The body is over the limit of {limit} bytes.", limit=limit)
        return self._refused

    def json_body(self, limit: int, *, optional: bool = False, patch: bool = False) -> Any:
        """The body as strict JSON. An absent one reads as `{}` where it is `optional`, else it is malformed."""
        raw = self.raw_body(limit)
        if not raw and optional:
            return {}
        given = self.environ.get("CONTENT_TYPE", "")
        if given != JSON and not self._is_json(patch):
            wanted = f"{JSON} or {MERGE_PATCH}" if patch else JSON
            raise UnsupportedMediaType(f"The body must be {wanted}.")
        return parse_json(raw)

    def _is_json(self, patch: bool) -> bool:
        charset = self.mimetype_params.get("charset", "utf-8").lower()
        return charset in ("utf-8", "utf8") and (self.mimetype == JSON or (patch and self.mimetype == MERGE_PATCH))


#: The request that this thread is answering, or has answered last. Flask's own is not there for what `front` answers.
_current: ContextVar[Call] = ContextVar("esb_call")


def current_call() -> Call:
    """The request that this thread is answering."""
    return _current.get()
