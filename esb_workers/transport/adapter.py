"""The caller as a transport adapter of `requests`, whose types deliveries are written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter
from requests.cookies import RequestsCookieJar
from requests.utils import get_encoding_from_headers

from esb_workers.transport.http import MAX_BODY, Call, HttpCaller
from esb_workers.transport.http import Response as Reply
from esb_workers.transport.letterhead import Letter

__all__ = ["MAX_BODY", "BaseAdapter", "CallAdapter", "PreparedRequest", "Response", "reply_of", "taken"]


class CallAdapter(BaseAdapter):
    """The caller as a transport adapter of `requests`: mount it on a Session or send to it directly.

    Streams, proxies and client certificates are not supported, certificates are always checked, and the
    body is cut at `max_body`. A Session follows redirects on its own: send with `allow_redirects=False`.
    """

    def __init__(self, caller: HttpCaller, max_body: int = MAX_BODY) -> None:
        super().__init__()
        self._caller = caller
        self._max_body = max_body

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = 10.0,
        verify: bool | str = True,
        cert: object = None,
        proxies: Mapping[str, str] | None = None,
        max_body: int | None = None,
    ) -> Response:
        """Send; `timeout` is for the whole call, seconds (of a pair, the sum), `max_body` for this one.

        Raises a CallFailed.
        """
        if not verify or cert or proxies:
            raise ValueError("proxies, client certificates and verify=False are not supported")
        reply = self._caller.call(
            request.method or "GET",
            request.url or "",
            request.headers or {},
            _bytes(request.body),
            timeout_ms=round(_seconds(timeout) * 1000),
            max_body=self._max_body if max_body is None else max_body,
        )
        return _Answered(reply, request)

    def ready(self, request: PreparedRequest, *, timeout: float, max_body: int) -> Call | None:
        """The request, to be sent without waiting; None where that could take long: see `HttpCaller.ready`."""
        return self._caller.ready(
            request.method or "GET",
            request.url or "",
            request.headers or {},
            _bytes(request.body),
            timeout_ms=round(timeout * 1000),
            max_body=max_body,
        )

    def post(self, letter: Letter, *, timeout: float, max_body: int) -> Call | None:
        """The same for a request that is bytes already."""
        return self._caller.post(letter, round(timeout * 1000), max_body)

    def close(self) -> None:
        """Close the kept connections."""
        self._caller.close()


@dataclass(frozen=True, slots=True)
class _Raw:
    """What the caller alone knows of an answer."""

    resent: bool


def taken(seconds: float, *, resent: bool = False) -> Response:
    """202 from where there are no statuses, after `seconds`; `resent`: it was sent twice, under one id."""
    response = Response()
    response.status_code, response.reason = 202, "Accepted"
    response.raw = _Raw(resent)
    response.elapsed = timedelta(seconds=seconds)
    response._content = b""  # noqa: SLF001  where requests keeps a body that has been read
    return response


def reply_of(response: Response) -> Reply:
    """What a transport has answered, in the words of those that are ready to be sent."""
    took = round(response.elapsed.total_seconds() * 1000)
    truncated, resent = (getattr(response.raw, name, False) for name in ("truncated", "resent"))
    return Reply(response.status_code, response.headers, response.content, took, truncated, resent=resent)


def _seconds(timeout: float | tuple[float | None, float | None] | None) -> float:
    parts = timeout if isinstance(timeout, tuple) else (timeout,)
    return sum(part for part in parts if part is not None) or 10.0


def _bytes(body: object) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray)):
        return bytes(body)
    raise ValueError("only bytes and text can be sent as a body")


class _Answered(Response):
    """A Response that makes what hardly anybody asks for, cookies and encoding, when somebody does."""

    def __init__(self, reply: Reply, request: PreparedRequest) -> None:
        # In place of super().__init__(), which costs as much as the rest of the answer.
        self.status_code, self.reason, self.headers = reply.status, reply.reason, reply.headers
        self.raw = reply  # for what only the caller knows
        self.elapsed = timedelta(milliseconds=reply.duration_ms)
        self.request, self.url, self.history = request, request.url or "", []
        self._next = None
        # The body is here already; requests keeps it in these attributes once it has been read.
        self._content, self._content_consumed = reply.body, True

    @cached_property
    def cookies(self) -> RequestsCookieJar:  # type: ignore[override]
        return RequestsCookieJar()

    @cached_property
    def encoding(self) -> str | None:  # type: ignore[override]
        return get_encoding_from_headers(self.headers)
